#include "atelier/inference/openvino_network.h"

#include <ATen/Parallel.h>
#include <dlfcn.h>
#include <fmt/ranges.h>
#include <sys/stat.h>

#include <algorithm>
#include <array>
#include <openvino/core/op_extension.hpp>
#include <openvino/runtime/core.hpp>
#include <optional>
#include <sstream>

#include "atelier/backends/openvino/openvino_norm.h"
#include "atelier/backends/openvino/openvino_sinusoid.h"
#include "atelier/backends/openvino/openvino_winograd.h"
#include "atelier/backends/torch/error_message.h"
#include "atelier/core/error.h"
#include "atelier/inference/compile_cache.h"

namespace atelier::inference {

namespace {

constexpr std::array<std::int64_t, 4> batch_sizes{64, 16, 4, 1};

ov::Core& core() {
    static ov::Core& only = *[] {
        // Never destroyed: requests may outlive static objects.
        auto* made = new ov::Core;
        made->add_extension(std::make_shared<ov::OpExtension<backends::FusedNormNode>>());
        made->add_extension(std::make_shared<ov::OpExtension<backends::SinusoidNode>>());
        made->add_extension(std::make_shared<ov::OpExtension<backends::WinogradNode>>());
        return made;
    }();
    return only;
}

/// Identifies this build: another one may build other graphs.
std::string this_program() {
    Dl_info info{};
    struct stat status{};
    if (dladdr(reinterpret_cast<void*>(&core), &info) == 0 || stat(info.dli_fname, &status) != 0)
        return "";
    return fmt::format("{} {}.{}", status.st_size, status.st_mtim.tv_sec, status.st_mtim.tv_nsec);
}

/// Everything that a compiled network depends on besides its graph.
std::string compile_environment(const ov::AnyMap& options) {
    static const std::string fixed =
        fmt::format("{}\n{}\n{}\n{}", this_program(), ov::get_openvino_version().buildNumber,
                    core().get_property("CPU", ov::device::full_name),
                    fmt::join(core().get_property("CPU", ov::device::capabilities), " "));
    std::string chosen;
    for (const auto& [name, value] : options) chosen += name + "=" + value.as<std::string>() + "\n";
    return fixed + "\n" + chosen;
}

ov::CompiledModel compile_graph(const std::shared_ptr<ov::Model>& graph,
                                const ov::AnyMap& options) {
    try {
        return core().compile_model(graph, "CPU", options);
    } catch (const ov::Exception& error) {
        core::fail("OpenVINO cannot compile this {}: {}", graph->get_friendly_name(),
                   backends::error_message(error));
    }
}

std::optional<ov::CompiledModel> import_compiled(const std::string& bytes,
                                                 const ov::AnyMap& options) {
    try {
        std::istringstream stream(bytes);
        return core().import_model(stream, "CPU", options);
    } catch (const ov::Exception&) {
        return std::nullopt;
    }
}

class RequestBatch : public CompiledNetwork::Batch {
public:
    explicit RequestBatch(ov::InferRequest& request) : request_(request) {}

    float* input(std::size_t i) override { return request_.get_input_tensor(i).data<float>(); }
    std::int32_t* rows() override { return request_.get_input_tensor(1).data<std::int32_t>(); }
    const float* infer() override {
        request_.infer();
        return request_.get_output_tensor().data<const float>();
    }

private:
    ov::InferRequest& request_;
};

std::string bytes_of(ov::CompiledModel& model) {
    std::ostringstream stream;
    model.export_model(stream);
    return std::move(stream).str();
}

}  // namespace

bool cpu_computes_in_bfloat16() {
    const auto able = core().get_property("CPU", ov::device::capabilities);
    return std::ranges::find(able, ov::device::capability::BF16) != able.end();
}

bool cpu_computes_in_int8() {
#if defined(__x86_64__)
    return __builtin_cpu_supports("avx512vnni") || __builtin_cpu_supports("avxvnni");
#else
    return true;
#endif
}

ov::CompiledModel OpenVinoNetwork::compile(std::int64_t batch) const {
    const ov::AnyMap options{ov::hint::inference_precision(source_.precision),
                             ov::hint::performance_mode(ov::hint::PerformanceMode::LATENCY),
                             ov::num_streams(1), ov::inference_num_threads(at::get_num_threads())};
    if (source_.identity.empty()) return compile_graph(source_.write(batch), options);
    const CompileCache cache = CompileCache::default_cache();
    const std::string key =
        fmt::format("{}\n{}\n{}", source_.identity, batch, compile_environment(options));
    if (const auto bytes = cache.find(key)) {
        if (auto model = import_compiled(*bytes, options)) return std::move(*model);
    }
    ov::CompiledModel compiled = compile_graph(source_.write(batch), options);
    cache.store(key, bytes_of(compiled));
    return compiled;
}

ov::InferRequest& OpenVinoNetwork::request_for(std::int64_t batch) {
    const auto found = requests_.find(batch);
    if (found != requests_.end()) return found->second;
    ov::InferRequest request = compile(batch).create_infer_request();
    if (source_.on_compiled) source_.on_compiled();
    return requests_.emplace(batch, std::move(request)).first->second;
}

void OpenVinoNetwork::for_each_batch(std::int64_t samples, const OnBatch& on_batch) {
    requests(samples, [&](ov::InferRequest& request, std::int64_t first, std::int64_t count) {
        RequestBatch batch(request);
        on_batch(batch, first, count);
    });
}

void OpenVinoNetwork::requests(
    std::int64_t samples,
    const std::function<void(ov::InferRequest&, std::int64_t, std::int64_t)>& run) {
    for (std::int64_t first = 0; first < samples;) {
        const std::int64_t count = *std::ranges::find_if(
            batch_sizes, [&](std::int64_t size) { return size <= samples - first; });
        run(request_for(count), first, count);
        first += count;
    }
}

}  // namespace atelier::inference
