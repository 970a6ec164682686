/* A custom op of ONNX Runtime in a few lines of C++17, for the `onnxruntime` kernels of edgec.
 *
 *   struct Scale {
 *       float factor;
 *       explicit Scale(const edgec::Attributes &given) : factor(given.number("factor", 1)) {}
 *       void operator()(const edgec::Call &call) const {
 *           auto x = call.input<float>(0);
 *           auto y = call.output<float>(0, x.shape);
 *           call.parallel(x.size, [&](size_t i) { y.data[i] = factor * x.data[i]; });
 *       }
 *   };
 *   EDGEC_OP(Scale)
 *
 * The compiler is told domain, name and types from kernel.toml. What an op throws becomes the
 * error of the run. `parallel` uses the session's own threads.
 */
#pragma once

#include <algorithm>
#include <cstdint>
#include <exception>
#include <functional>
#include <iterator>
#include <numeric>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

extern "C" {
#include "onnxruntime_abi.h"
}

namespace edgec {

using Shape = std::vector<int64_t>;

/* Where a function of ONNX Runtime stands, called with the arguments that it is given. */
template <class... Arguments>
Handle call_at(const Function *api, int place, Arguments... arguments)
{
    void *found = reinterpret_cast<void *>(api[place]);
    return reinterpret_cast<Handle (*)(Arguments...)>(found)(arguments...);
}

inline void check(const Function *api, Handle failure)
{
    if (failure) {
        call_at(api, RELEASE_STATUS, failure);
        throw std::runtime_error("ONNX Runtime refused a call of the kernel");
    }
}

class Attributes {
public:
    Attributes(const Function *api, Handle info) : api_(api), info_(info) {}

    int64_t integer(const char *name, int64_t otherwise) const
    {
        return get(KERNEL_INFO_GET_ATTRIBUTE_INT64, name, otherwise);
    }

    float number(const char *name, float otherwise) const
    {
        return get(KERNEL_INFO_GET_ATTRIBUTE_FLOAT, name, otherwise);
    }

private:
    template <class T> T get(int place, const char *name, T otherwise) const
    {
        T found = otherwise;
        Handle failure = call_at(api_, place, info_, name, &found);
        if (failure)
            call_at(api_, RELEASE_STATUS, failure);
        return failure ? otherwise : found;
    }

    const Function *api_;
    Handle info_;
};

template <class T> struct Tensor {
    T *data;
    Shape shape;
    size_t size;
};

class Call {
public:
    Call(const Function *api, Handle context) : api_(api), context_(context) {}

    template <class T> Tensor<const T> input(size_t index) const
    {
        Handle value = nullptr, info = nullptr;
        check(api_, call_at(api_, KERNEL_CONTEXT_GET_INPUT, context_, index, &value));
        check(api_, call_at(api_, GET_TENSOR_TYPE_AND_SHAPE, value, &info));
        size_t rank = 0;
        call_at(api_, GET_DIMENSIONS_COUNT, info, &rank);
        Shape shape(rank);
        call_at(api_, GET_DIMENSIONS, info, shape.data(), rank);
        call_at(api_, RELEASE_TENSOR_TYPE_AND_SHAPE_INFO, info);
        return {data<const T>(value), shape, size(shape)};
    }

    template <class T> Tensor<T> output(size_t index, const Shape &shape) const
    {
        Handle value = nullptr;
        check(api_, call_at(api_, KERNEL_CONTEXT_GET_OUTPUT, context_, index, shape.data(),
                            shape.size(), &value));
        return {data<T>(value), shape, size(shape)};
    }

    /* f(0) … f(count - 1) on the session's threads. */
    template <class F> void parallel(size_t count, const F &f) const
    {
        auto one = [](void *given, size_t i) { (*static_cast<const F *>(given))(i); };
        void (*step)(void *, size_t) = one;
        void *given = const_cast<F *>(&f);
        check(api_, call_at(api_, KERNEL_CONTEXT_PARALLEL_FOR, context_, step, count, size_t{0},
                            given));
    }

    /* f(begin, end) over pieces of at least `least` of `count` numbers, on the session's threads. */
    template <class F> void pieces(size_t count, size_t least, const F &f) const
    {
        size_t number = std::max<size_t>(1, std::min<size_t>(64, count / std::max<size_t>(1, least)));
        auto piece = [&](size_t i) { f(count * i / number, count * (i + 1) / number); };
        number > 1 ? parallel(number, piece) : piece(0);
    }

private:
    static size_t size(const Shape &shape)
    {
        return std::accumulate(shape.begin(), shape.end(), size_t{1}, std::multiplies<size_t>());
    }

    template <class T> T *data(Handle value) const
    {
        void *found = nullptr;
        check(api_, call_at(api_, GET_TENSOR_MUTABLE_DATA, value, &found));
        return static_cast<T *>(found);
    }

    const Function *api_;
    Handle context_;
};

struct Entry {
    const char *domain;
    const CustomOp *op;
};

/* The ops of a library, which `register.cc` hands over; the library hides its symbols. */
inline std::vector<Entry> &entries()
{
    static std::vector<Entry> all;
    return all;
}

#ifdef EDGEC_NAME
/* What ONNX Runtime calls; nothing is thrown through it. */
template <class Op> struct Registered {
    struct Kernel {
        const Function *api;
        Op op;
    };

    static constexpr int inputs[] = {EDGEC_INPUTS}, outputs[] = {EDGEC_OUTPUTS};

    static Handle failed(const Function *api, const std::exception &error)
    {
        return call_at(api, CREATE_STATUS, 1, error.what());
    }

    static Handle create(const CustomOp *, const Function *api, Handle info, void **kernel)
    {
        try {
            *kernel = new Kernel{api, Op(Attributes(api, info))};
            return nullptr;
        } catch (const std::exception &error) {
            return failed(api, error);
        }
    }

    static Handle compute(void *state, Handle context)
    {
        const Kernel &kernel = *static_cast<Kernel *>(state);
        try {
            kernel.op(Call(kernel.api, context));
            return nullptr;
        } catch (const std::exception &error) {
            return failed(kernel.api, error);
        }
    }

    static bool add()
    {
        static const CustomOp op = {
            STATUSES, nullptr, [](const CustomOp *) { return EDGEC_NAME; },
            [](const CustomOp *) -> const char * { return nullptr; },
            [](const CustomOp *, size_t i) { return inputs[i]; },
            [](const CustomOp *) { return std::size(inputs); },
            [](const CustomOp *, size_t i) { return outputs[i]; },
            [](const CustomOp *) { return std::size(outputs); },
            nullptr, [](void *state) { delete static_cast<Kernel *>(state); },
            [](const CustomOp *, size_t) { return 0; }, [](const CustomOp *, size_t) { return 0; },
            [](const CustomOp *, size_t) { return 0; }, {}, create, compute, {}};
        entries().push_back({EDGEC_DOMAIN, &op});
        return true;
    }
};

#endif

}  // namespace edgec

#define EDGEC_OP(Op) static const bool edgec_added = edgec::Registered<Op>::add();
