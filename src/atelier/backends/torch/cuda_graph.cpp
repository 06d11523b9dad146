#include <ATen/core/GraphImplInterface.h>
#include <ATen/cuda/CUDAGraph.h>

// A module of its own, libatelier_cuda_graph.so, since it needs NVIDIA's headers to be built and
// libtorch_cuda to be opened, which the program itself does without. Opening it is all there is to
// do: LibTorch 2.13 has graphs of CUDA and an interface of graphs for all devices, and this puts
// the two together.
namespace atelier::backends {

namespace {

class CudaGraph final : public at::GraphImplInterface {
public:
    explicit CudaGraph(const at::GraphImplArgs& arguments) : graph_(arguments.keep_graph) {}

    void capture_begin(at::MempoolId_t pool, at::GraphCaptureMode mode) override {
        graph_.capture_begin(pool, mode_of(mode));
    }
    void capture_end() override { graph_.capture_end(); }
    void instantiate() override { graph_.instantiate(); }
    void replay() override { graph_.replay(); }
    void reset() override { graph_.reset(); }
    at::MempoolId_t pool() const override {
        return const_cast<at::cuda::CUDAGraph&>(graph_).pool();
    }
    void enable_debug_mode() override { graph_.enable_debug_mode(); }
    void debug_dump(const std::string& path) override { graph_.debug_dump(path); }

private:
    static cudaStreamCaptureMode mode_of(at::GraphCaptureMode mode) {
        switch (mode) {
            case at::GraphCaptureMode::Default:
            case at::GraphCaptureMode::Global:
                return cudaStreamCaptureModeGlobal;
            case at::GraphCaptureMode::ThreadLocal:
                return cudaStreamCaptureModeThreadLocal;
            case at::GraphCaptureMode::Relaxed:
                break;
        }
        return cudaStreamCaptureModeRelaxed;
    }

    at::cuda::CUDAGraph graph_;
};

// A later LibTorch may have its own.
[[maybe_unused]] const bool registered = [] {
    if (!at::has_graph_impl(c10::kCUDA)) {
        at::GraphImplRegistry()->Register(
            c10::DeviceTypeName(c10::kCUDA, /*lower_case=*/false),
            [](const at::GraphImplArgs& arguments) -> std::unique_ptr<at::GraphImplInterface> {
                return std::make_unique<CudaGraph>(arguments);
            });
    }
    return true;
}();

}  // namespace

}  // namespace atelier::backends
