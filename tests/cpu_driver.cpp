// A stand-in for libcuda.so.1 that works at once and on the CPU: memory is the host's, kernels are those of the .cu
// files behind cuda_shim.cpp (one library a file, named in FACESTREAM_KERNELS), graphs are lists of steps. It shows that
// the calls in engines/cuda are ones that NVIDIA's bindings and PyCUDA take, that they are made in an order that makes
// sense, in threads that have a context, and that what is made is given back; not that a GPU is happy with them.

#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <atomic>
#include <functional>
#include <sstream>
#include <string>
#include <vector>

typedef int Result;
typedef std::vector<std::function<void()>> Graph;
struct Stream {
    int device;
    bool blocking;
};
static const int OK = 0, INVALID_VALUE = 1, NO_DEVICE = 100, INVALID_DEVICE = 101, INVALID_CONTEXT = 201, NOT_FOUND = 500;
static const int LAUNCH_FAILED = 719, NOT_SUPPORTED = 801, CAPTURE_UNSUPPORTED = 900;
static Graph* recording = 0;
static void* recorded = 0;  // the stream that is being captured
static int problems = 0;
static std::atomic<int> alive_memory, alive_host, alive_streams, alive_events, alive_graphs;
static thread_local std::vector<void*> contexts;  // a context is its device's number, plus one

static int setting(const char* name, int otherwise) { return getenv(name) ? atoi(getenv(name)) : otherwise; }
static int device_now() { return contexts.empty() ? -1 : (int)(intptr_t)contexts.back() - 1; }

static Result put(void* stream, std::function<void()> step) {
    if (device_now() < 0) return INVALID_CONTEXT;
    if (!stream || ((Stream*)stream)->blocking) return INVALID_VALUE;  // these wait for the default stream's work
    if (((Stream*)stream)->device != device_now()) return INVALID_CONTEXT;
    if (recording && stream == recorded) recording->push_back(step);
    else step();
    return problems ? LAUNCH_FAILED : OK;
}

extern "C" {
Result cuInit(unsigned) { return setting("FACESTREAM_CUINIT", 0); }
Result cuGetExportTable(const void** table, const void*) { return *table = 0, NOT_FOUND; }  // NVRTC asks for one
Result cuDriverGetVersion(int* v) { return *v = setting("FACESTREAM_DRIVER", 13000), OK; }
Result cuDeviceGetCount(int* n) { return *n = setting("FACESTREAM_GPUS", 1), OK; }
Result cuDeviceGet(int* d, int i) { return *d = i, i < 0 || i >= setting("FACESTREAM_GPUS", 1) ? INVALID_DEVICE : OK; }
Result cuDeviceGetName(char* name, int n, int d) { return snprintf(name, n, "CPU stand-in %d", d), OK; }
Result cuDeviceGetAttribute(int* v, int kind, int) { return *v = kind == 75 ? 9 : 0, OK; }  // 75, 76: capability
Result cuGetErrorName(int error, const char** s) { return *s = error ? "CUDA_ERROR_OF_STAND_IN" : "CUDA_SUCCESS", OK; }
Result cuGetErrorString(int error, const char** s) { return *s = error ? "the stand-in refuses" : "no error", OK; }
Result cuDevicePrimaryCtxRetain(void** c, int d) { return *c = (void*)(intptr_t)(d + 1), OK; }
Result cuDevicePrimaryCtxRelease_v2(int) { return OK; }
Result cuCtxSetCurrent(void* c) {
    if (contexts.empty()) contexts.push_back(c);
    else contexts.back() = c;
    return OK;
}
Result cuCtxPushCurrent_v2(void* c) { return contexts.push_back(c), OK; }
Result cuCtxPopCurrent_v2(void** c) {
    if (contexts.empty()) return INVALID_CONTEXT;
    if (c) *c = contexts.back();
    return contexts.pop_back(), OK;
}
Result cuCtxGetCurrent(void** c) { return *c = contexts.empty() ? 0 : contexts.back(), OK; }
Result cuCtxGetDevice(int* d) { return *d = device_now(), *d < 0 ? INVALID_CONTEXT : OK; }
Result cuCtxSynchronize() { return device_now() < 0 ? INVALID_CONTEXT : OK; }
Result cuMemGetInfo_v2(size_t* free, size_t* total) { return *free = *total = 1 << 30, device_now() < 0 ? INVALID_CONTEXT : OK; }
Result cuMemAlloc_v2(uintptr_t* p, size_t n) {
    if (device_now() < 0) return INVALID_CONTEXT;
    if (recording && setting("FACESTREAM_REFUSE_CAPTURE", 0)) return CAPTURE_UNSUPPORTED;
    *p = (uintptr_t)aligned_alloc(256, (n + 255) / 256 * 256);
    return memset((void*)*p, 0xAB, n), alive_memory++, OK;
}
Result cuMemFree_v2(uintptr_t p) {
    if (device_now() < 0) return INVALID_CONTEXT;
    return free((void*)p), alive_memory--, OK;
}
Result cuMemHostAlloc(void** p, size_t n, unsigned) {
    if (device_now() < 0) return INVALID_CONTEXT;
    return *p = malloc(n), alive_host++, OK;
}
Result cuMemAllocHost_v2(void** p, size_t n) { return cuMemHostAlloc(p, n, 0); }
Result cuMemFreeHost(void* p) {
    if (device_now() < 0) return INVALID_CONTEXT;
    return free(p), alive_host--, OK;
}
Result cuStreamCreate(void** s, unsigned flags) {
    if (device_now() < 0) return INVALID_CONTEXT;
    return *s = new Stream{device_now(), flags != 1}, alive_streams++, OK;
}
Result cuStreamDestroy_v2(void* s) { return delete (Stream*)s, alive_streams--, OK; }
Result cuStreamSynchronize(void*) { return OK; }
Result cuEventCreate(void** e, unsigned) {
    if (device_now() < 0) return INVALID_CONTEXT;
    return *e = calloc(1, sizeof(int)), alive_events++, OK;
}
Result cuEventDestroy_v2(void* e) { return free(e), alive_events--, OK; }
Result cuEventRecord(void* e, void* s) { return put(s, [e] { *(int*)e = 1; }); }
Result cuEventSynchronize(void* e) { return *(int*)e ? OK : INVALID_VALUE; }
Result cuEventElapsedTime(float* ms, void*, void*) { return *ms = 1, OK; }
Result cuEventElapsedTime_v2(float* ms, void*, void*) { return *ms = 1, OK; }
Result cuMemcpyHtoDAsync_v2(uintptr_t d, const void* h, size_t n, void* s) { return put(s, [=] { memcpy((void*)d, h, n); }); }
Result cuMemcpyDtoHAsync_v2(void* h, uintptr_t d, size_t n, void* s) { return put(s, [=] { memcpy(h, (void*)d, n); }); }
Result cuModuleLoadData(void** m, const void* image) { return *m = (void*)1, memcmp(image, "\177ELF", 4) ? 200 : OK; }
Result cuModuleGetFunction(void** f, void*, const char* name) { return *f = strdup(name), OK; }

// memory, page-locked memory, streams, events, graphs that are there.
void facestream_alive(int* found) {
    int all[] = {alive_memory, alive_host, alive_streams, alive_events, alive_graphs};
    memcpy(found, all, sizeof all);
}

Result cuLaunchKernel(void* f, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz,
                      unsigned shared, void* stream, void** parameters, void** extra) {
    if (bz != 1 || shared || extra || !parameters) return INVALID_VALUE;
    std::string name = (char*)f;
    std::stringstream libraries(getenv("FACESTREAM_KERNELS"));
    for (std::string path; std::getline(libraries, path, ':');) {
        void* library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
        int n = ((int (*)(const char*))dlsym(library, "argument_count"))(name.c_str());
        if (n < 0) continue;
        std::vector<uint64_t> values(n);  // copied now, as a driver does; a ctypes value has room for eight bytes
        for (int i = 0; i < n; i++) memcpy(&values[i], parameters[i], 8);
        auto launch = (const char* (*)(const char*, const unsigned*, uint64_t, const void* const*))dlsym(library, "launch");
        return put(stream, [=] {
            std::vector<const void*> pointers;
            for (const uint64_t& value : values) pointers.push_back(&value);
            unsigned sizes[5] = {gx, gy, gz, bx, by};
            if (launch(name.c_str(), sizes, 1, pointers.data())) problems++;
        });
    }
    return NOT_FOUND;
}

Result cuStreamBeginCapture_v2(void* s, int) {
    if (recording) return INVALID_VALUE;
    return recorded = s, recording = new Graph, alive_graphs++, OK;
}
Result cuStreamEndCapture(void* s, void** g) {
    *g = recording, recording = 0;
    if (!setting("FACESTREAM_REFUSE_CAPTURE", 0)) return s == recorded ? OK : INVALID_VALUE;
    return delete (Graph*)*g, *g = 0, alive_graphs--, CAPTURE_UNSUPPORTED + 1;  // invalidated
}
Result cuGraphInstantiateWithFlags(void** e, void* g, unsigned long long) {
    return *e = new Graph(*(Graph*)g), alive_graphs++, OK;
}
Result cuGraphDestroy(void* g) { return delete (Graph*)g, alive_graphs--, OK; }
Result cuGraphExecDestroy(void* g) { return delete (Graph*)g, alive_graphs--, OK; }
Result cuGraphLaunch(void* g, void* s) {
    Graph steps = *(Graph*)g;
    return put(s, [steps] { for (auto& step : steps) step(); });
}

Result cuGetProcAddress_v2(const char* name, void** f, int, uint64_t, int* status) {
    void* self = dlopen("libcuda.so.1", RTLD_NOW | RTLD_NOLOAD);
    for (const char* suffix : {"", "_v2", "WithFlags"}) {
        if (!strcmp(suffix, "") && !strcmp(name, "cuGraphInstantiate")) continue;
        *f = dlsym(self, (std::string(name) + suffix).c_str());
        if (*f) break;
    }
    if (status) *status = *f ? 0 : 1;
    return *f ? OK : NOT_FOUND;
}
Result cuGetProcAddress(const char* name, void** f, int v, uint64_t flags) { return cuGetProcAddress_v2(name, f, v, flags, 0); }
}
