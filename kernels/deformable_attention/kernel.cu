/* A thread for each number of the output: its query and head gather their points. */
extern "C" __global__ void MultiScaleDeformableAttention(
    const float *value, const long long *sizes, const long long *firsts, const float *where,
    const float *share, int count, int pixels, int heads, int depth, int queries, int levels,
    int points, float *y)
{
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= count)
        return;
    const int row = i / depth, head = row % heads, one = row / heads / queries;
    const float *map = value + ((long long)one * pixels * heads + head) * depth + i % depth;
    float sum = 0;
    for (int level = 0; level < levels; level++) {
        const int height = (int)sizes[2 * level], width = (int)sizes[2 * level + 1];
        for (int point = 0; point < points; point++) {
            const long long at = ((long long)row * levels + level) * points + point;
            const float u = where[2 * at] * width - 0.5f, v = where[2 * at + 1] * height - 0.5f;
            if (!(u > -1 && v > -1 && u < width && v < height))
                continue;
            const int left = (int)floorf(u), top = (int)floorf(v);
            for (int corner = 0; corner < 4; corner++) {
                const int column = left + corner % 2, line = top + corner / 2;
                if (column < 0 || line < 0 || column >= width || line >= height)
                    continue;
                const float near = (1 - fabsf(u - column)) * (1 - fabsf(v - line));
                const long long pixel = firsts[level] + (long long)line * width + column;
                sum += near * share[at] * map[pixel * heads * depth];
            }
        }
    }
    y[i] = sum;
}
