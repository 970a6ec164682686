/* CUDA C++ on the CPU, for numerics: a thread of the host for each of a block, block after block. */
#pragma once

#include <cmath>
#include <condition_variable>
#include <cstring>
#include <mutex>
#include <thread>
#include <vector>

#define __global__
#define __device__
#define __shared__ static

struct Index {
    unsigned x = 0, y = 0, z = 0;
};

static thread_local Index threadIdx;
static Index blockIdx, blockDim, gridDim;

static float __int_as_float(int bits)
{
    float number;
    std::memcpy(&number, &bits, sizeof number);
    return number;
}

class Barrier {
public:
    void reset(unsigned count) { count_ = waiting_ = count; }

    void wait()
    {
        std::unique_lock<std::mutex> lock(mutex_);
        const unsigned long turn = turn_;
        if (--waiting_ == 0) {
            turn_++, waiting_ = count_;
            all_.notify_all();
        } else {
            all_.wait(lock, [&] { return turn != turn_; });
        }
    }

private:
    std::mutex mutex_;
    std::condition_variable all_;
    unsigned count_ = 0, waiting_ = 0;
    unsigned long turn_ = 0;
};

static Barrier barrier;
static inline void __syncthreads() { barrier.wait(); }

template <class F> static void run_grid(unsigned blocks, unsigned threads, const F &kernel)
{
    blockDim.x = threads, gridDim.x = blocks;
    for (unsigned block = 0; block < blocks; block++) {
        blockIdx.x = block;
        barrier.reset(threads);
        std::vector<std::thread> all;
        for (unsigned thread = 0; thread < threads; thread++)
            all.emplace_back([&, thread] { threadIdx.x = thread, kernel(); });
        for (std::thread &one : all)
            one.join();
    }
}
