/* Histograms where the tensors are: custom ops of ONNX Runtime that count what passes.
 *
 *   edgec::Histogram (x: float, slot: int) -> float [4]: low, high, NaNs, infinities of this call
 *   edgec::Extremes (x: float [..., C]) -> lows, highs: float [C]; a channel's low is NaN if any is
 *
 * What it counts, and why the result does not depend on order or threads, is written down in
 * edgec/histogram.py, whose numpy code gives the same numbers. Counts go to arrays of the caller,
 * which hands them over with edgec_slots before the first run.
 */
#include <math.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "onnxruntime_abi.h"

enum { BINS = 2048, ALL = 2 * BINS, FINEST = -100, BLOCK = 4096, MOST_RANK = 64 };
enum { INFINITE = 0x7f800000 };        /* the bits of infinity */

static int64_t *counts;                /* [slots][ALL] */
static int32_t *exponents;             /* [slots] */
static int64_t slots;
static pthread_mutex_t merging = PTHREAD_MUTEX_INITIALIZER;

void edgec_slots(int64_t n, int64_t *all_counts, int32_t *all_exponents)
{
    slots = n, counts = all_counts, exponents = all_exponents;
}

/* ---- counting ---- */

static int32_t bits_of(float x)
{
    int32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

static float float_of(int32_t bits)
{
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

static int exponent_of(float magnitude)
{
    int power;
    if (!(magnitude > 0))
        return FINEST;
    frexpf(magnitude, &power);
    return power - 11 > FINEST ? power - 11 : FINEST;
}

/* Floats as integers of the same order: reductions of integers are vectorised without fast-math. */
static int32_t ordered(int32_t bits) { return bits ^ ((bits >> 31) & INT32_MAX); }

/* The extremes of x; returns whether all of it is finite. */
static int extremes(const float *x, size_t n, float *low, float *high)
{
    int32_t least = INFINITE, most = ordered((int32_t)0xff800000);
    for (size_t i = 0; i < n; i++) {
        int32_t key = ordered(bits_of(x[i]));
        least = key < least ? key : least;
        most = key > most ? key : most;
    }
    *low = float_of(ordered(least)), *high = float_of(ordered(most));
    return n == 0 || (most < INFINITE && least > ordered((int32_t)0xff800000));
}

/* The finite ones of x; NaNs and infinities are added up in `others`. */
static size_t finite_ones(const float *x, size_t n, float *into, size_t *others)
{
    size_t kept = 0;
    for (size_t i = 0; i < n; i++) {
        int32_t bits = bits_of(x[i]) & INT32_MAX;
        if (bits < INFINITE)
            into[kept++] = x[i];
        else
            others[bits == INFINITE]++;
    }
    return kept;
}

#ifdef __AVX512F__
/* Vectors as GCC and Clang have them: reading immintrin.h would take most of the compiler's time. */
typedef float Floats __attribute__((vector_size(64)));
typedef int32_t Ints __attribute__((vector_size(64)));
typedef uint16_t Shorts __attribute__((vector_size(32)));

/* The bins that are not `zero`, moved together to the front; returns how many. */
static size_t others_of(Ints bins, Ints zero, uint16_t *into)
{
    uint16_t other;
    Ints packed;
    Shorts found;
    __asm__("vpcmpneqd %2, %1, %0" : "=Yk"(other) : "v"(bins), "v"(zero));
    __asm__("vpcompressd %1, %0 %{%2%}%{z%}" : "=v"(packed) : "v"(bins), "Yk"(other));
    __asm__("vpmovdw %1, %0" : "=v"(found) : "v"(packed));
    memcpy(into, &found, sizeof found);
    return (size_t)__builtin_popcount(other);
}
#endif

/* The bins of x but for the bin of zero, in which half of all rectified values lie. */
static size_t bins_of(const float *x, size_t n, float scale, uint16_t *bins)
{
    size_t kept = 0, i = 0;
#ifdef __AVX512F__
    const Ints zero = (Ints){0} + BINS;
    for (; i + 16 <= n; i += 16) {
        Ints part;
        memcpy(&part, x + i, sizeof part);
        Floats scaled = (Floats)(part & INT32_MAX) * scale;
        Ints bin = __builtin_convertvector(scaled, Ints) ^ (part >> 31);
        kept += others_of(bin + zero, zero, bins + kept);
    }
#endif
    for (; i < n; i++) {
        int32_t bin = ((int32_t)(fabsf(x[i]) * scale) ^ (bits_of(x[i]) >> 31)) + BINS;
        bins[kept] = (uint16_t)bin;
        kept += bin != BINS;
    }
    return kept;
}

/* Two halves of counts in turn: equal neighbours do not wait for each other. */
static void count(const uint16_t *bins, size_t n, uint32_t *own)
{
    size_t i = 0;
    for (; i + 4 <= n; i += 4) {
        uint64_t four;
        memcpy(&four, bins + i, sizeof four);
        own[four & 0xffff]++;
        own[ALL + (four >> 16 & 0xffff)]++;
        own[four >> 32 & 0xffff]++;
        own[ALL + (four >> 48)]++;
    }
    for (; i < n; i++)
        own[bins[i]]++;
}

/* Join the bins of a slot until their width is 2**exponent. */
static void coarsen(int64_t slot, int exponent)
{
    int64_t joined[ALL] = {0}, *all = counts + slot * ALL;
    int shift = exponent - exponents[slot];
    for (int bin = -BINS; bin < BINS; bin++)
        joined[(bin >> (shift < 31 ? shift : 31)) + BINS] += all[bin + BINS];
    memcpy(all, joined, sizeof joined);
    __atomic_store_n(&exponents[slot], exponent, __ATOMIC_RELAXED);
}

/* Add own counts to a slot, and clear them. */
static void merge(int64_t slot, int exponent, uint32_t *own)
{
    int64_t *all = counts + slot * ALL;
    pthread_mutex_lock(&merging);
    if (exponent > exponents[slot])
        coarsen(slot, exponent);
    int shift = exponents[slot] - exponent;
    if (shift == 0)                    /* vectorised */
        for (int i = 0; i < ALL; i++)
            all[i] += (int64_t)own[i] + own[ALL + i];
    else
        for (int bin = -BINS; bin < BINS; bin++)
            all[(bin >> (shift < 31 ? shift : 31)) + BINS] +=
                (int64_t)own[bin + BINS] + own[ALL + bin + BINS];
    pthread_mutex_unlock(&merging);
    memset(own, 0, 2 * ALL * sizeof *own);
}

static void observe(const float *x, size_t n, int64_t slot, float *result)
{
    uint32_t own[2 * ALL] = {0};
    uint16_t bins[BLOCK + 16];
    float copy[BLOCK], low, high;
    size_t others[2] = {0};
    int exponent = __atomic_load_n(&exponents[slot], __ATOMIC_RELAXED);  /* or less than by now */
    result[0] = INFINITY, result[1] = -INFINITY;
    for (size_t start = 0; start < n; start += BLOCK) {
        const float *block = x + start;
        size_t size = n - start < BLOCK ? n - start : BLOCK;
        if (!extremes(block, size, &low, &high)) {
            size = finite_ones(block, size, copy, others);
            block = copy;
            extremes(block, size, &low, &high);
        }
        if (size == 0)
            continue;
        result[0] = fminf(result[0], low) + 0.0f;      /* no negative zero */
        result[1] = fmaxf(result[1], high) + 0.0f;
        int needed = exponent_of(fmaxf(fabsf(low), fabsf(high)));
        if (needed > exponent) {
            merge(slot, exponent, own);
            exponent = needed;
        }
        size_t kept = bins_of(block, size, float_of((127 - exponent) << 23), bins);
        own[BINS] += (uint32_t)(size - kept);
        count(bins, kept, own);
    }
    merge(slot, exponent, own);
    result[2] = (float)others[0], result[3] = (float)others[1];
}

/* By channel, in one reading: ONNX Runtime's ReduceMin and ReduceMax take ten times as long. */
static void channels(const float *restrict x, size_t rows, size_t n, float *restrict lows,
                     float *restrict highs)
{
    for (size_t c = 0; c < n; c++)
        lows[c] = INFINITY, highs[c] = -INFINITY;
    for (size_t row = 0; row < rows; row++, x += n)
        for (size_t c = 0; c < n; c++) {
            lows[c] = (x[c] < lows[c]) | (x[c] != x[c]) ? x[c] : lows[c];   /* a NaN stays */
            highs[c] = x[c] > highs[c] ? x[c] : highs[c];
        }
}

/* ---- the ops ---- */

typedef struct { const Function *api; int64_t slot; } Kernel;

#define CALL(api, place, ...) ((Handle (*)())(api)[place])(__VA_ARGS__)

static void *create(const CustomOp *op, const Function *api, Handle info)
{
    Kernel *kernel = malloc(sizeof *kernel);
    (void)op;
    if (kernel) {
        kernel->api = api;
        kernel->slot = -1;
        CALL(api, KERNEL_INFO_GET_ATTRIBUTE_INT64, info, "slot", &kernel->slot);
    }
    return kernel;
}

static void compute(void *state, Handle context)
{
    const Kernel *kernel = state;
    const Function *api = kernel->api;
    Handle input = NULL, output = NULL, shape = NULL;
    float *x = NULL, *result = NULL;
    const int64_t four = 4;
    size_t n = 0;
    CALL(api, KERNEL_CONTEXT_GET_INPUT, context, (size_t)0, &input);
    CALL(api, GET_TENSOR_TYPE_AND_SHAPE, input, &shape);
    CALL(api, GET_TENSOR_SHAPE_ELEMENT_COUNT, shape, &n);
    CALL(api, RELEASE_TENSOR_TYPE_AND_SHAPE_INFO, shape);
    CALL(api, GET_TENSOR_MUTABLE_DATA, input, &x);
    CALL(api, KERNEL_CONTEXT_GET_OUTPUT, context, (size_t)0, &four, (size_t)1, &output);
    CALL(api, GET_TENSOR_MUTABLE_DATA, output, &result);
    if (kernel->slot >= 0 && kernel->slot < slots)
        observe(x, n, kernel->slot, result);
}

static void compute_extremes(void *state, Handle context)
{
    const Function *api = ((const Kernel *)state)->api;
    Handle input = NULL, outputs[2] = {NULL, NULL}, shape = NULL;
    float *x = NULL, *found[2] = {NULL, NULL};
    int64_t dims[MOST_RANK] = {0};
    size_t n = 0, rank = 0;
    CALL(api, KERNEL_CONTEXT_GET_INPUT, context, (size_t)0, &input);
    CALL(api, GET_TENSOR_TYPE_AND_SHAPE, input, &shape);
    CALL(api, GET_TENSOR_SHAPE_ELEMENT_COUNT, shape, &n);
    CALL(api, GET_DIMENSIONS_COUNT, shape, &rank);
    if (rank >= 1 && rank <= MOST_RANK)
        CALL(api, GET_DIMENSIONS, shape, dims, rank);
    CALL(api, RELEASE_TENSOR_TYPE_AND_SHAPE_INFO, shape);
    CALL(api, GET_TENSOR_MUTABLE_DATA, input, &x);
    const int64_t size = rank >= 1 && rank <= MOST_RANK ? dims[rank - 1] : 0;
    for (size_t i = 0; i < 2; i++) {
        CALL(api, KERNEL_CONTEXT_GET_OUTPUT, context, i, &size, (size_t)1, &outputs[i]);
        CALL(api, GET_TENSOR_MUTABLE_DATA, outputs[i], &found[i]);
    }
    if (size > 0)
        channels(x, n / (size_t)size, (size_t)size, found[0], found[1]);
}

static const char *name(const CustomOp *op) { return (void)op, "Histogram"; }
static const char *name_extremes(const CustomOp *op) { return (void)op, "Extremes"; }
static const char *provider(const CustomOp *op) { return (void)op, NULL; }
static int type(const CustomOp *op, size_t i) { return (void)op, (void)i, FLOAT; }
static size_t one(const CustomOp *op) { return (void)op, 1; }
static size_t two(const CustomOp *op) { return (void)op, 2; }
static int required(const CustomOp *op, size_t i) { return (void)op, (void)i, 0; }

static const CustomOp histogram = {
    VERSION, create, name, provider, type, one, type, one, compute, free, required, required,
    NULL, {0}, NULL, NULL, {0}
};

static const CustomOp extremes_by_channel = {
    VERSION, create, name_extremes, provider, type, one, type, two, compute_extremes, free,
    required, required, NULL, {0}, NULL, NULL, {0}
};

Handle RegisterCustomOps(Handle options, const ApiBase *base)
{
    const Function *api = base->api(VERSION);
    Handle domain = NULL;
    Handle failure = CALL(api, CREATE_CUSTOM_OP_DOMAIN, "edgec", &domain);
    if (!failure)
        failure = CALL(api, CUSTOM_OP_DOMAIN_ADD, domain, &histogram);
    if (!failure)
        failure = CALL(api, CUSTOM_OP_DOMAIN_ADD, domain, &extremes_by_channel);
    if (!failure)
        failure = CALL(api, ADD_CUSTOM_OP_DOMAIN, options, domain);
    return failure;
}
