// Runs a CUDA source on the CPU: each thread of a block is a fibre, and between two barriers they run one after the
// other in an order drawn anew each time, so that a missing barrier shows. Blocks run one by one, in random order too.
// Found besides: a barrier that not all threads reach, threads at different barriers, shared memory used before it is
// written (it starts as noise).
//
// Build: g++ -DSOURCE='"nms.cu"' -DKERNELS='K(nms_sort) K(nms_mask)' -shared -fPIC. With -fsanitize=address, accesses
// outside of arrays are found as well.

#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <ucontext.h>
#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/common_interface_defs.h>
#define __shared__ static
#else
#define __shared__ static __attribute__((section("block_shared")))
extern char __start_block_shared[], __stop_block_shared[];
static char no_shared_memory __attribute__((section("block_shared"), used));  // a kernel may have none
#endif
#define __global__
#define __device__ inline
#define __launch_bounds__(...)
#define __syncthreads() barrier(__LINE__)

struct Dim {
    unsigned x, y, z;
};
static Dim blockIdx, blockDim, gridDim, threadIdx;

__attribute__((unused)) static void barrier(int line);
static inline unsigned __float_as_uint(float x) { unsigned u; memcpy(&u, &x, 4); return u; }
static inline float __fmul_rn(float a, float b) { return a * b; }  // x86-64 and -ffp-contract=off: never fused
static inline double __dmul_rn(double a, double b) { return a * b; }
static inline int __ffsll(unsigned long long x) { return __builtin_ffsll((long long)x); }
static inline int __popcll(unsigned long long x) { return __builtin_popcountll(x); }
template <class T> static inline T atomicAdd(T* p, T v) { T old = *p; *p = old + v; return old; }
template <class T> static inline T atomicOr(T* p, T v) { T old = *p; *p = old | v; return old; }

// To the nearest half, ties to even, as cvt.rn.f16.f32 does it.
static inline unsigned short float_to_half(float x) {
    unsigned bits = __float_as_uint(x), sign = bits >> 16 & 0x8000u, magnitude = bits & 0x7fffffffu;
    if (magnitude > 0x7f800000u) return 0x7fff;
    if (magnitude >= 0x477ff000u) return (unsigned short)(sign | 0x7c00u);  // from 65520 up
    if (magnitude < 0x38800000u) {  // below the smallest normal half: adding 0.5 rounds at 2^-24
        float f;
        memcpy(&f, &magnitude, 4);
        f += 0.5f;
        return (unsigned short)(sign | (__float_as_uint(f) - 0x3f000000u));
    }
    unsigned odd = magnitude >> 13 & 1;
    return (unsigned short)(sign | ((magnitude - 0x38000000u + 0xfffu + odd) >> 13));
}

#include SOURCE

static const size_t STACK = 65536;
static const int MOST = 1024;
enum State { READY, WAITING, DONE };
static ucontext_t scheduler, fibres[MOST];
static State states[MOST];
static int lines[MOST], current;
static char* stacks;
static void (*body)();
static const char* problem;
static uint64_t dice;
#ifdef __SANITIZE_ADDRESS__
static void* fake;
static const void* home;
static size_t home_size;
#endif

static unsigned draw(unsigned n) {  // xorshift64*
    dice ^= dice >> 12, dice ^= dice << 25, dice ^= dice >> 27;
    return (unsigned)((dice * 2685821657736338717ull >> 33) % n);
}

static void leave(State state) {
    int self = current;
    states[self] = state;
#ifdef __SANITIZE_ADDRESS__
    void* own = 0;
    __sanitizer_start_switch_fiber(state == DONE ? 0 : &own, home, home_size);
#endif
    swapcontext(&fibres[self], &scheduler);
#ifdef __SANITIZE_ADDRESS__
    __sanitizer_finish_switch_fiber(own, &home, &home_size);
#endif
}

static void barrier(int line) {
    lines[current] = line;
    leave(WAITING);
}

static void start() {
#ifdef __SANITIZE_ADDRESS__
    __sanitizer_finish_switch_fiber(0, &home, &home_size);
#endif
    body();
    leave(DONE);
}

static void resume(int i) {
    current = i;
    threadIdx = {i % blockDim.x, i / blockDim.x, 0};
#ifdef __SANITIZE_ADDRESS__
    __sanitizer_start_switch_fiber(&fake, stacks + i * STACK, STACK);
#endif
    swapcontext(&scheduler, &fibres[i]);
#ifdef __SANITIZE_ADDRESS__
    __sanitizer_finish_switch_fiber(fake, 0, 0);
#endif
}

static void run_block(int threads) {
    static int order[MOST];
#ifndef __SANITIZE_ADDRESS__
    for (char* p = __start_block_shared; p < __stop_block_shared; p++) *p = (char)draw(256);
#endif
    for (int i = 0; i < threads; i++) {
        getcontext(&fibres[i]);
        fibres[i].uc_stack.ss_sp = stacks + i * STACK;
        fibres[i].uc_stack.ss_size = STACK;
        makecontext(&fibres[i], start, 0);
        states[i] = READY;
        order[i] = i;
    }
    for (;;) {
        for (int i = threads - 1; i > 0; i--) {
            int j = (int)draw(i + 1), swapped = order[i];
            order[i] = order[j], order[j] = swapped;
        }
        for (int i = 0; i < threads; i++) resume(order[i]);
        int done = 0, line = -1;
        for (int i = 0; i < threads; i++) {
            if (states[i] == DONE) done++;
            else if (line < 0) line = lines[i];
            else if (line != lines[i]) problem = "threads wait at different barriers";
        }
        if (done && done < threads) problem = "some threads end while others wait at a barrier";
        if (done || problem) return;
    }
}

static void* const* arguments;
template <class... A> struct Call {
    template <size_t... I> struct Indices {};
    template <size_t N, size_t... I> struct Make : Make<N - 1, N - 1, I...> {};
    template <size_t... I> struct Make<0, I...> { typedef Indices<I...> type; };
    template <size_t... I> static void go(void (*kernel)(A...), Indices<I...>) { kernel(*(A*)arguments[I]...); }
    static void all(void (*kernel)(A...)) { go(kernel, typename Make<sizeof...(A)>::type()); }
};
template <class... A> static void call(void (*kernel)(A...)) { Call<A...>::all(kernel); }

template <class... A> static int count(void (*)(A...)) { return (int)sizeof...(A); }

// How many arguments a kernel takes, -1 for none of that name.
extern "C" int argument_count(const char* name) {
#define K(kernel) if (!strcmp(name, #kernel)) return count(kernel);
    KERNELS
#undef K
    return -1;
}

// sizes: grid x, y, z, block x, y. Returns null, or what is wrong with the kernel.
extern "C" const char* launch(const char* name, const unsigned* sizes, uint64_t seed, void* const* pointers) {
    gridDim = {sizes[0], sizes[1], sizes[2]}, blockDim = {sizes[3], sizes[4], 1};
    int threads = (int)(blockDim.x * blockDim.y);
    if (threads < 1 || threads > MOST) return "a block has 1 to 1024 threads";
    body = 0;
#define K(kernel) if (!strcmp(name, #kernel)) body = [] { call(kernel); };
    KERNELS
    if (!body) return "no such kernel";
    if (!stacks) stacks = (char*)malloc(MOST * STACK);
    arguments = pointers, problem = 0, dice = seed * 2 + 1;
    unsigned blocks = gridDim.x * gridDim.y * gridDim.z, from = blocks ? draw(blocks) : 0;
    for (unsigned b = 0; b < blocks && !problem; b++) {
        unsigned i = (b + from) % blocks;
        blockIdx = {i % gridDim.x, i / gridDim.x % gridDim.y, i / gridDim.x / gridDim.y};
        run_block(threads);
    }
    return problem;
}
