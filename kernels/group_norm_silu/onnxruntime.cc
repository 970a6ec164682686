/* A group is read twice, for its mean and its variance, and written once, while it is in the cache. */
#include <cmath>
#include <cstring>

#include "edgec_op.hpp"

/* e^x to 2 units in the last place, without branches, so that it is vectorised (Cody and Waite). */
static inline float exponential(float x)
{
    x = x < -40.0f ? -40.0f : x;  // below 1e-17 nothing is left of SiLU; further out the compiler
    x = x > 40.0f ? 40.0f : x;    // would compute with denormal numbers, at ten times the cost
    float n = std::floor(x * 1.44269504f + 0.5f);
    float r = x - n * 0.693359375f + n * 2.12194440e-4f;
    float p = 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    int32_t bits = (static_cast<int32_t>(n) + 127) << 23;
    float power;
    std::memcpy(&power, &bits, sizeof power);
    return p * power;
}

/* The sum of (x - center)^power in double precision, of blocks in single precision. */
template <int POWER> static double sum(const float *x, size_t n, float center)
{
    constexpr size_t BLOCK = 1024;
    double total = 0;
    for (size_t start = 0; start < n; start += BLOCK) {
        const size_t end = std::min(n, start + BLOCK);
        float part = 0;
#pragma omp simd reduction(+ : part)
        for (size_t i = start; i < end; i++) {
            const float away = x[i] - center;
            part += POWER == 2 ? away * away : away;
        }
        total += part;
    }
    return total;
}

/* y = v / (1 + e^-v) with v = a (x - center) + b. */
static void gate(const float *x, float *y, size_t n, float center, float a, float b)
{
#pragma omp simd
    for (size_t i = 0; i < n; i++) {
        const float v = (x[i] - center) * a + b;
        y[i] = v / (1 + exponential(-v));
    }
}

struct GroupNormSilu {
    int64_t groups;
    float epsilon;

    explicit GroupNormSilu(const edgec::Attributes &given)
        : groups(given.integer("num_groups", 0)), epsilon(given.number("epsilon", 1e-5f)) {}

    void operator()(const edgec::Call &call) const
    {
        auto x = call.input<float>(0), scale = call.input<float>(1), bias = call.input<float>(2);
        auto y = call.output<float>(0, x.shape);
        if (x.shape.size() < 2 || groups < 1 || x.shape[1] % groups)
            throw std::invalid_argument("GroupNormSilu: channels are no multiple of num_groups");
        const size_t channels = x.shape[1], own = channels / groups;
        if (scale.size != channels || bias.size != channels)
            throw std::invalid_argument("GroupNormSilu: scale and bias have a number per channel");
        if (x.size == 0)
            return;
        const size_t rows = x.shape[0] * groups, pixels = x.size / (x.shape[0] * channels);
        call.parallel(rows, [&](size_t row) {
            const size_t n = own * pixels, first = row % groups * own;
            const float *from = x.data + row * n;
            float *to = y.data + row * n;
            const float center = sum<1>(from, n, 0) / n;
            const float factor = 1 / std::sqrt(sum<2>(from, n, center) / n + epsilon);
            for (size_t channel = 0; channel < own; channel++) {
                const size_t at = channel * pixels;
                gate(from + at, to + at, pixels, center, factor * scale.data[first + channel],
                     bias.data[first + channel]);
            }
        });
    }
};

EDGEC_OP(GroupNormSilu)
