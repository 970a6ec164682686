/* y = (x + sqrt(x * x + b)) / 2, in one pass over the numbers. */
#include <cmath>

#include "edgec_op.hpp"

struct Squareplus {
    float b;

    explicit Squareplus(const edgec::Attributes &given) : b(given.number("b", 4)) {}

    void operator()(const edgec::Call &call) const
    {
        auto x = call.input<float>(0);
        auto y = call.output<float>(0, x.shape);
        call.pieces(x.size, 16384, [&](size_t begin, size_t end) {
            for (size_t i = begin; i < end; i++)
                y.data[i] = (x.data[i] + std::sqrt(x.data[i] * x.data[i] + b)) * 0.5f;
        });
    }
};

EDGEC_OP(Squareplus)
