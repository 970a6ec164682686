/* Each query and head gathers its points by itself: nothing is stored but the sum. */
#include <cmath>

#include "edgec_op.hpp"

struct MultiScaleDeformableAttention {
    explicit MultiScaleDeformableAttention(const edgec::Attributes &) {}

    void operator()(const edgec::Call &call) const
    {
        auto value = call.input<float>(0);                      // [n, all pixels, heads, depth]
        auto sizes = call.input<int64_t>(1), first = call.input<int64_t>(2);
        auto where = call.input<float>(3);                      // [n, queries, heads, levels, points, 2]
        auto share = call.input<float>(4);
        if (value.shape.size() != 4 || where.shape.size() != 6 || sizes.shape.size() != 2)
            throw std::invalid_argument("MultiScaleDeformableAttention: an input of another rank");
        const size_t pixels = value.shape[1], heads = value.shape[2], depth = value.shape[3];
        const size_t queries = where.shape[1], levels = where.shape[3], points = where.shape[4];
        for (size_t level = 0; level < levels; level++) {
            const int64_t begin = first.data[level], area = sizes.data[2 * level] * sizes.data[2 * level + 1];
            if (sizes.data[2 * level] < 0 || sizes.data[2 * level + 1] < 0 || begin < 0
                || begin + area > static_cast<int64_t>(pixels))
                throw std::invalid_argument("MultiScaleDeformableAttention: a map beyond the values");
        }
        if (share.size * 2 != where.size || where.shape[0] != value.shape[0]
            || where.shape[2] != value.shape[2] || sizes.size != 2 * levels || first.size != levels)
            throw std::invalid_argument("MultiScaleDeformableAttention: inputs do not fit together");
        auto y = call.output<float>(0, {value.shape[0], where.shape[1], value.shape[2] * value.shape[3]});
        call.pieces(y.size / std::max<size_t>(1, depth), 64, [&](size_t begin, size_t end) {
            for (size_t row = begin; row < end; row++) {        // a query and a head
                float *sum = y.data + row * depth;
                std::fill(sum, sum + depth, 0.0f);
                const float *map = value.data + row / (queries * heads) * pixels * heads * depth
                                   + row % heads * depth;
                for (size_t point = 0; point < levels * points; point++) {
                    const size_t level = point / points, at = row * levels * points + point;
                    const int64_t height = sizes.data[2 * level], width = sizes.data[2 * level + 1];
                    const float x = where.data[2 * at] * width - 0.5f;
                    const float v = where.data[2 * at + 1] * height - 0.5f;
                    if (!(x > -1 && v > -1 && x < width && v < height))
                        continue;
                    const int64_t left = std::floor(x), top = std::floor(v);
                    for (int64_t corner = 0; corner < 4; corner++) {
                        const int64_t column = left + corner % 2, line = top + corner / 2;
                        if (column < 0 || line < 0 || column >= width || line >= height)
                            continue;
                        const float near = (1 - std::fabs(x - column)) * (1 - std::fabs(v - line));
                        const float weight = near * share.data[at];
                        const float *from = map + (first.data[level] + line * width + column) * heads * depth;
                        for (size_t i = 0; i < depth; i++)
                            sum[i] += weight * from[i];
                    }
                }
            }
        });
    }
};

EDGEC_OP(MultiScaleDeformableAttention)
