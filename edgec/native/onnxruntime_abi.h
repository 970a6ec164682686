/* The part of ONNX Runtime's C interface that a custom op needs, declared anew.
 *
 * No package ships the header. The interface only grows: the functions below stand in its first
 * version, and one in its 17th, at places that ONNX Runtime itself asserts never to move.
 * https://github.com/microsoft/onnxruntime/blob/main/include/onnxruntime/core/session/onnxruntime_c_api.h
 */
#include <stddef.h>
#include <stdint.h>

typedef void *Handle;                  /* of anything that ONNX Runtime owns */
typedef Handle (*Function)(void);      /* cast to its real type where it is called */
typedef struct { const Function *(*api)(uint32_t version); } ApiBase;

enum { VERSION = 1, PADDING = 32, FLOAT = 1 };
enum { STATUSES = 16, PARALLEL = 17 }; /* versions: ops that may fail, the thread pool */

enum {                                 /* places in the table of functions */
    CREATE_STATUS = 0,
    CREATE_CUSTOM_OP_DOMAIN = 26,
    CUSTOM_OP_DOMAIN_ADD = 27,
    ADD_CUSTOM_OP_DOMAIN = 28,
    GET_TENSOR_MUTABLE_DATA = 51,
    GET_DIMENSIONS_COUNT = 61,
    GET_DIMENSIONS = 62,
    GET_TENSOR_SHAPE_ELEMENT_COUNT = 64,
    GET_TENSOR_TYPE_AND_SHAPE = 65,
    KERNEL_INFO_GET_ATTRIBUTE_FLOAT = 85,
    KERNEL_INFO_GET_ATTRIBUTE_INT64 = 86,
    KERNEL_CONTEXT_GET_INPUT = 90,
    KERNEL_CONTEXT_GET_OUTPUT = 91,
    RELEASE_STATUS = 93,
    RELEASE_TENSOR_TYPE_AND_SHAPE_INFO = 99,
    KERNEL_CONTEXT_PARALLEL_FOR = 274
};

typedef struct CustomOp CustomOp;
struct CustomOp {
    uint32_t version;
    void *(*create)(const CustomOp *, const Function *, Handle info);
    const char *(*name)(const CustomOp *);
    const char *(*provider)(const CustomOp *);
    int (*input_type)(const CustomOp *, size_t);
    size_t (*input_count)(const CustomOp *);
    int (*output_type)(const CustomOp *, size_t);
    size_t (*output_count)(const CustomOp *);
    void (*compute)(void *kernel, Handle context);
    void (*destroy)(void *kernel);
    int (*input_kind)(const CustomOp *, size_t);
    int (*output_kind)(const CustomOp *, size_t);
    int (*input_memory)(const CustomOp *, size_t);       /* from here on: of later versions, */
    Function variadic[4];                                /* which `version` tells to ignore */
    Handle (*create_or_fail)(const CustomOp *, const Function *, Handle info, void **kernel);
    Handle (*compute_or_fail)(void *kernel, Handle context);
    void *later[PADDING];
};
