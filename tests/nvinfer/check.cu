// Asks engines/cuda/nms_plugin.cu what TensorRT would. Launches go nowhere without a card; all else is looked at.
#include "nms_plugin.cu"

#include <cstdio>
#include <cstring>

#define CHECK(what) if (!(what)) return printf("not so: %s\n", #what), 1

struct Number : IDimensionExpr {};

// What a builder asks for an expression: here each number is one, and nothing is computed.
struct Numbers : apiv::VExprBuilder {
    Number numbers[16];
    IDimensionExpr const* constant(int64_t value) noexcept override { return &numbers[value]; }
    IDimensionExpr const* operation(DimensionOperation, IDimensionExpr const&, IDimensionExpr const&) noexcept override {
        return nullptr;
    }
    IDimensionExpr const* declareSizeTensor(int32_t, IDimensionExpr const&, IDimensionExpr const&) noexcept override {
        return nullptr;
    }
};

struct Builder : IExprBuilder {
    explicit Builder(Numbers* made) { mImpl = made; }
};

int main() {
    int32_t count = 0;
    auto* creator = static_cast<IPluginCreatorV3One*>(getCreators(count)[0]);
    CHECK(count == 1 && !strcmp(creator->getPluginName(), "FacestreamNMS") && !strcmp(creator->getPluginVersion(), "1"));
    CHECK(creator->getFieldNames()->nbFields == 2);
    float threshold = 0.02f, iou = 0.45f;
    PluginField fields[] = {{"iou", &iou, PluginFieldType::kFLOAT32, 1},
                            {"threshold", &threshold, PluginFieldType::kFLOAT32, 1}};
    PluginFieldCollection one = {1, fields}, both = {2, fields};
    CHECK(!creator->createPlugin("x", &one, TensorRTPhase::kBUILD));
    IPluginV3* first = creator->createPlugin("x", &both, TensorRTPhase::kBUILD);
    CHECK(first);
    auto* kept = static_cast<IPluginV3OneRuntime*>(first->getCapabilityInterface(PluginCapabilityType::kRUNTIME));
    IPluginV3* plugin = creator->createPlugin("x", kept->getFieldsToSerialize(), TensorRTPhase::kRUNTIME)->clone();
    delete first;
    auto* build = static_cast<IPluginV3OneBuild*>(plugin->getCapabilityInterface(PluginCapabilityType::kBUILD));
    auto* runtime = static_cast<IPluginV3OneRuntime*>(plugin->getCapabilityInterface(PluginCapabilityType::kRUNTIME));
    PluginFieldCollection const* values = runtime->getFieldsToSerialize();
    CHECK(*(const float*)values->fields[0].data == threshold && *(const float*)values->fields[1].data == iou);

    DataType types[2];
    CHECK(build->getNbOutputs() == 2 && !build->getOutputDataTypes(types, 2, nullptr, 2));
    CHECK(types[0] == DataType::kINT32 && types[1] == DataType::kFLOAT);
    Numbers numbers;
    Builder builder(&numbers);
    Number n, k, four;
    DimsExprs in[] = {{3, {&n, &k, &four}}, {2, {&n, &k}}}, out[2];
    CHECK(!build->getOutputShapes(in, 2, nullptr, 0, out, 2, builder));
    CHECK(out[0].nbDims == 1 && out[0].d[0] == &n && out[1].nbDims == 3 && out[1].d[0] == &n && out[1].d[1] == &k);
    CHECK(out[1].d[2] == &numbers.numbers[5]);
    DynamicPluginTensorDesc tensors[4] = {};
    tensors[2].desc.type = DataType::kINT32;
    for (int i = 0; i < 4; i++) CHECK(build->supportsFormatCombination(i, tensors, 2, 2));
    tensors[0].desc.type = DataType::kHALF, tensors[3].desc.format = TensorFormat::kCHW2;
    CHECK(!build->supportsFormatCombination(0, tensors, 2, 2) && !build->supportsFormatCombination(3, tensors, 2, 2));
    tensors[0].max = {3, {8, MAX_BOXES, 4}};
    printf("workspace %zu\n", build->getWorkspaceSize(tensors, 2, tensors + 2, 2));
    PluginTensorDesc here = {{3, {8, MAX_BOXES, 4}}};
    CHECK(!runtime->onShapeChange(&here, 2, nullptr, 2));
    here.dims.d[1]++;
    CHECK(runtime->onShapeChange(&here, 2, nullptr, 2));
    return 0;
}
