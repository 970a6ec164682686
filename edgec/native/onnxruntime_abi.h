/* The part of ONNX Runtime's C interface that a custom op without options needs, declared anew.
 *
 * No package ships the header. The interface only grows: the functions below stand in its first
 * version, at places that ONNX Runtime itself asserts never to move.
 * https://github.com/microsoft/onnxruntime/blob/main/include/onnxruntime/core/session/onnxruntime_c_api.h
 */
#include <stddef.h>
#include <stdint.h>

typedef void *Handle;                  /* of anything that ONNX Runtime owns */
typedef Handle (*Function)(void);      /* cast to its real type where it is called */
typedef struct { const Function *(*api)(uint32_t version); } ApiBase;

enum { VERSION = 1, PADDING = 32, FLOAT = 1 };

enum {                                 /* places in the table of functions */
    CREATE_CUSTOM_OP_DOMAIN = 26,
    CUSTOM_OP_DOMAIN_ADD = 27,
    ADD_CUSTOM_OP_DOMAIN = 28,
    GET_TENSOR_MUTABLE_DATA = 51,
    GET_TENSOR_SHAPE_ELEMENT_COUNT = 64,
    GET_TENSOR_TYPE_AND_SHAPE = 65,
    KERNEL_INFO_GET_ATTRIBUTE_INT64 = 86,
    KERNEL_CONTEXT_GET_INPUT = 90,
    KERNEL_CONTEXT_GET_OUTPUT = 91,
    RELEASE_TENSOR_TYPE_AND_SHAPE_INFO = 99
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
    void *later[PADDING];              /* fields of later versions, which `version` tells to ignore */
};
