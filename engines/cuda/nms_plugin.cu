// nms.cu as a TensorRT plugin in a library of its own, for programs that load plans without Python. Same name, version,
// fields, inputs and outputs as nms_plugin.py, so plans of build_engine.py load with either.
//
//     make plugin TENSORRT=/usr/local/TensorRT
//     trtexec --loadEngine=plainS.plan --dynamicPlugins=build/libfacestream_nms.so
//
// Needs the headers of TensorRT 10 or 11 and nvcc; it links against neither's libraries but the CUDA runtime.

#include <NvInferRuntime.h>
#include <cuda_runtime_api.h>

#include <new>

#include "nms.cu"

namespace {

using namespace nvinfer1;

// The parts of the workspace, in the order of engines/cuda/kernels.py:nms.
const size_t MASK = MAX_BOXES * WORDS * sizeof(Word), ORDER = MAX_BOXES * sizeof(int), SORTED = MAX_BOXES * 4 * sizeof(float);
const size_t AN_IMAGE = MASK + ORDER + SORTED + 256;

struct Values {
    float threshold, iou;
};

class Plugin : public IPluginV3, public IPluginV3OneCore, public IPluginV3OneBuild, public IPluginV3OneRuntime {
public:
    explicit Plugin(Values values) : values_(values) {
        fields_[0] = {"threshold", &values_.threshold, PluginFieldType::kFLOAT32, 1};
        fields_[1] = {"iou", &values_.iou, PluginFieldType::kFLOAT32, 1};
        collection_ = {2, fields_};
    }

    IPluginCapability* getCapabilityInterface(PluginCapabilityType type) noexcept override {
        switch (type) {
            case PluginCapabilityType::kCORE: return static_cast<IPluginV3OneCore*>(this);
            case PluginCapabilityType::kBUILD: return static_cast<IPluginV3OneBuild*>(this);
            case PluginCapabilityType::kRUNTIME: return static_cast<IPluginV3OneRuntime*>(this);
        }
        return nullptr;
    }
    IPluginV3* clone() noexcept override { return new (std::nothrow) Plugin(values_); }

    AsciiChar const* getPluginName() const noexcept override { return "FacestreamNMS"; }
    AsciiChar const* getPluginVersion() const noexcept override { return "1"; }
    AsciiChar const* getPluginNamespace() const noexcept override { return ""; }

    int32_t getNbOutputs() const noexcept override { return 2; }
    int32_t getOutputDataTypes(DataType* out, int32_t, DataType const*, int32_t) const noexcept override {
        out[0] = DataType::kINT32;
        out[1] = DataType::kFLOAT;
        return 0;
    }
    int32_t getOutputShapes(DimsExprs const* in, int32_t, DimsExprs const*, int32_t, DimsExprs* out, int32_t,
                            IExprBuilder& builder) noexcept override {
        out[0].nbDims = 1;
        out[1].nbDims = 3;
        out[0].d[0] = out[1].d[0] = in[0].d[0];
        out[1].d[1] = in[0].d[1];
        out[1].d[2] = builder.constant(5);
        return out[1].d[2] ? 0 : -1;
    }
    bool supportsFormatCombination(int32_t at, DynamicPluginTensorDesc const* tensors, int32_t inputs,
                                   int32_t) noexcept override {
        DataType wanted = at == inputs ? DataType::kINT32 : DataType::kFLOAT;
        return tensors[at].desc.type == wanted && tensors[at].desc.format == TensorFormat::kLINEAR;
    }
    int32_t configurePlugin(DynamicPluginTensorDesc const*, int32_t, DynamicPluginTensorDesc const*,
                            int32_t) noexcept override {
        return 0;
    }
    size_t getWorkspaceSize(DynamicPluginTensorDesc const* in, int32_t, DynamicPluginTensorDesc const*,
                            int32_t) const noexcept override {
        return AN_IMAGE * in[0].max.d[0];
    }

    int32_t onShapeChange(PluginTensorDesc const* in, int32_t, PluginTensorDesc const*, int32_t) noexcept override {
        return in[0].dims.d[1] <= MAX_BOXES ? 0 : -1;
    }
    int32_t enqueue(PluginTensorDesc const* in, PluginTensorDesc const*, void const* const* inputs, void* const* outputs,
                    void* workspace, cudaStream_t stream) noexcept override {
        unsigned images = (unsigned)in[0].dims.d[0];
        int boxes = (int)in[0].dims.d[1], words = boxes > 64 ? (boxes + 63) / 64 : 1;
        char* at = (char*)workspace;
        Word* mask = (Word*)at;
        int* order = (int*)(at += MASK * images);
        float* sorted = (float*)(at += ORDER * images);
        int* count = (int*)(at += SORTED * images);
        const float *xyxy = (const float*)inputs[0], *scores = (const float*)inputs[1];
        nms_sort<<<images, THREADS, 0, stream>>>(xyxy, scores, boxes, values_.threshold, sorted, order, count);
        nms_mask<<<dim3(words, words, images), 64, 0, stream>>>(sorted, count, values_.iou, mask);
        nms_scan<<<images, THREADS, 0, stream>>>(sorted, order, count, mask, scores, boxes, (int*)outputs[0],
                                                 (float*)outputs[1]);
        return cudaPeekAtLastError() == cudaSuccess ? 0 : -1;
    }
    IPluginV3* attachToContext(IPluginResourceContext*) noexcept override { return clone(); }
    PluginFieldCollection const* getFieldsToSerialize() noexcept override { return &collection_; }

private:
    Values values_;
    PluginField fields_[2];
    PluginFieldCollection collection_;
};

class Creator : public IPluginCreatorV3One {
public:
    Creator() {
        fields_[0] = {"threshold", nullptr, PluginFieldType::kFLOAT32, 1};
        fields_[1] = {"iou", nullptr, PluginFieldType::kFLOAT32, 1};
        collection_ = {2, fields_};
    }
    AsciiChar const* getPluginName() const noexcept override { return "FacestreamNMS"; }
    AsciiChar const* getPluginVersion() const noexcept override { return "1"; }
    AsciiChar const* getPluginNamespace() const noexcept override { return ""; }
    PluginFieldCollection const* getFieldNames() noexcept override { return &collection_; }

    // Null when a field is missing or of another type.
    IPluginV3* createPlugin(AsciiChar const*, PluginFieldCollection const* given, TensorRTPhase) noexcept override {
        Values values = {};
        int found = 0;
        for (int i = 0; i < given->nbFields; i++) {
            PluginField const& field = given->fields[i];
            if (field.type != PluginFieldType::kFLOAT32 || field.length != 1 || !field.data) continue;
            if (same(field.name, "threshold")) values.threshold = *(const float*)field.data, found |= 1;
            if (same(field.name, "iou")) values.iou = *(const float*)field.data, found |= 2;
        }
        return found == 3 ? new (std::nothrow) Plugin(values) : nullptr;
    }

private:
    static bool same(const char* a, const char* b) {
        while (*a && *a == *b) a++, b++;
        return *a == *b;
    }
    PluginField fields_[2];
    PluginFieldCollection collection_;
};

}  // namespace

// What IPluginRegistry::loadLibrary looks for.
#define SHOWN extern "C" __attribute__((visibility("default")))
SHOWN void setLoggerFinder(nvinfer1::ILoggerFinder*) {}
SHOWN nvinfer1::IPluginCreatorInterface* const* getCreators(int32_t& count) {
    static Creator creator;
    static nvinfer1::IPluginCreatorInterface* const all[] = {&creator};
    count = 1;
    return all;
}
