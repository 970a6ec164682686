/* A block for each group: the mean, then the variance around it, then the gate. */
#define MOST 256

static __device__ float block_sum(float value, float *partial)
{
    partial[threadIdx.x] = value;
    __syncthreads();
    for (unsigned half = blockDim.x / 2; half > 0; half /= 2) {
        if (threadIdx.x < half)
            partial[threadIdx.x] += partial[threadIdx.x + half];
        __syncthreads();
    }
    const float sum = partial[0];
    __syncthreads();
    return sum;
}

extern "C" __global__ void GroupNormSilu(const float *x, const float *scale, const float *bias,
                                         int own, int pixels, int groups, int epsilon, float *y)
{
    __shared__ float partial[MOST];
    const long long count = (long long)own * pixels;
    const float *from = x + blockIdx.x * count;
    float *to = y + blockIdx.x * count;
    const int first = blockIdx.x % groups * own;
    float sum = 0;
    for (long long i = threadIdx.x; i < count; i += blockDim.x)
        sum += from[i];
    const float mean = block_sum(sum, partial) / count;
    sum = 0;
    for (long long i = threadIdx.x; i < count; i += blockDim.x)
        sum += (from[i] - mean) * (from[i] - mean);
    const float factor = 1 / sqrtf(block_sum(sum, partial) / count + __int_as_float(epsilon));
    for (long long i = threadIdx.x; i < count; i += blockDim.x) {
        const int channel = first + (int)(i / pixels);
        const float v = (from[i] - mean) * factor * scale[channel] + bias[channel];
        to[i] = v / (1 + expf(-v));
    }
}
