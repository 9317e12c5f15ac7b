// A stand-in for libcuda.so.1 that works at once and on the CPU: memory is the host's, kernels are those of the .cu
// files behind cuda_shim.cpp (one library a file, named in FACESTREAM_KERNELS), graphs are lists of steps. It shows that
// the calls in engines/cuda/driver.py are ones that NVIDIA's bindings take, and that they are made in an order that
// makes sense; not that a card is happy with them.

#include <dlfcn.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <functional>
#include <sstream>
#include <string>
#include <vector>

typedef int Result;
typedef std::vector<std::function<void()>> Graph;
static Graph* recording = 0;
static void* recorded = 0;  // the stream that is being captured
static int problems = 0;

static Result put(void* stream, std::function<void()> step) {
    if (!stream) return 1;  // the default stream would wait for all others
    if (recording && stream == recorded) recording->push_back(step);
    else step();
    return problems ? 719 : 0;  // launch failed
}

extern "C" {
static int told(const char* name, int otherwise) { return getenv(name) ? atoi(getenv(name)) : otherwise; }
Result cuInit(unsigned) { return told("FACESTREAM_CUINIT", 0); }
Result cuGetExportTable(const void** table, const void*) { return *table = 0, 500; }  // NVRTC asks for one
Result cuDriverGetVersion(int* v) { return *v = told("FACESTREAM_DRIVER", 13000), 0; }
Result cuDeviceGet(int* d, int i) { return *d = i, i ? 101 : 0; }
Result cuDeviceGetCount(int* n) { return *n = 1, 0; }
Result cuDeviceGetName(char* name, int n, int) { return strncpy(name, "CPU stand-in", n), 0; }
Result cuDeviceGetAttribute(int* v, int kind, int) { return *v = kind == 75 ? 9 : 0, 0; }  // 75, 76: capability
Result cuDevicePrimaryCtxRetain(void** c, int) { return *c = (void*)1, 0; }
Result cuCtxSetCurrent(void*) { return 0; }
Result cuMemAlloc_v2(uintptr_t* p, size_t n) {
    *p = (uintptr_t)aligned_alloc(256, (n + 255) / 256 * 256);
    return memset((void*)*p, 0xAB, n), 0;
}
Result cuMemFree_v2(uintptr_t p) { return free((void*)p), 0; }
Result cuMemHostAlloc(void** p, size_t n, unsigned) { return *p = malloc(n), 0; }
Result cuMemFreeHost(void* p) { return free(p), 0; }
Result cuStreamCreate(void** s, unsigned flags) { return *s = malloc(1), flags == 1 ? 0 : 1; }
Result cuEventCreate(void** e, unsigned) { return *e = calloc(1, sizeof(int)), 0; }
Result cuEventRecord(void* e, void* s) { return put(s, [e] { *(int*)e = 1; }); }
Result cuEventSynchronize(void* e) { return *(int*)e ? 0 : 1; }
Result cuEventElapsedTime(float* ms, void*, void*) { return *ms = 1, 0; }
Result cuEventElapsedTime_v2(float* ms, void*, void*) { return *ms = 1, 0; }
Result cuMemcpyHtoDAsync_v2(uintptr_t d, const void* h, size_t n, void* s) { return put(s, [=] { memcpy((void*)d, h, n); }); }
Result cuMemcpyDtoHAsync_v2(void* h, uintptr_t d, size_t n, void* s) { return put(s, [=] { memcpy(h, (void*)d, n); }); }
Result cuModuleLoadData(void** m, const void* image) { return *m = (void*)1, memcmp(image, "\177ELF", 4) ? 200 : 0; }
Result cuModuleGetFunction(void** f, void*, const char* name) { return *f = strdup(name), 0; }

Result cuLaunchKernel(void* f, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz,
                      unsigned shared, void* stream, void** parameters, void** extra) {
    if (bz != 1 || shared || extra || !parameters) return 1;
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
    return 500;  // not found
}

Result cuStreamBeginCapture_v2(void* s, int) { return recorded = s, recording = new Graph, 0; }
Result cuStreamEndCapture(void* s, void** g) { return *g = recording, recording = 0, s == recorded ? 0 : 1; }
Result cuGraphInstantiateWithFlags(void** e, void* g, unsigned long long) { return *e = new Graph(*(Graph*)g), 0; }
Result cuGraphDestroy(void* g) { return delete (Graph*)g, 0; }
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
    return *f ? 0 : 500;
}
Result cuGetProcAddress(const char* name, void** f, int v, uint64_t flags) { return cuGetProcAddress_v2(name, f, v, flags, 0); }
}
