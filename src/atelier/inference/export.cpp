#include "atelier/inference/export.h"

#include <unistd.h>

#include <openvino/core/graph_util.hpp>
#include <openvino/runtime/core.hpp>

#include "atelier/backends/onnx/onnx_ops.h"
#include "atelier/backends/torch/error_message.h"
#include "atelier/core/atomic_file.h"
#include "atelier/core/error.h"
#include "atelier/inference/one_step_factors.h"

namespace atelier::inference {

namespace {

namespace fs = std::filesystem;
using backends::OnnxGraph;
using backends::OnnxOps;
using backends::OnnxValue;
using graph::Value;
using Metadata = std::map<std::string, std::string>;

std::string_view extension_of(GraphFormat format) {
    return format == GraphFormat::onnx ? ".onnx" : ".xml";
}

/// The file of weights that are not stored in the graph's own file.
fs::path weights_beside(const fs::path& file, GraphFormat format) {
    return format == GraphFormat::onnx ? OnnxGraph::data_file(file)
                                       : fs::path(file).replace_extension(".bin");
}

/// A hidden folder for intermediate files, removed by the destructor.
struct TemporaryFolder {
    explicit TemporaryFolder(const fs::path& beside)
        : path(beside.parent_path() /
               fmt::format(".{}.{}", beside.filename().string(), ::getpid())) {
        fs::create_directories(path);
    }
    ~TemporaryFolder() {
        std::error_code ignored;
        fs::remove_all(path, ignored);
    }
    TemporaryFolder(const TemporaryFolder&) = delete;
    fs::path path;
};

/// OpenVINO reads the ONNX file and writes its own two files; the one with the weights is moved
/// into place first.
void write_for_openvino(const OnnxGraph& graph, const fs::path& file, const std::string& name,
                        const Metadata& metadata) {
    const TemporaryFolder work(file);
    const fs::path onnx = work.path / "graph.onnx", xml = work.path / "graph.xml",
                   weights = work.path / "graph.bin";
    graph.write(onnx, name, {});
    try {
        const std::shared_ptr<ov::Model> model = ov::Core().read_model(onnx.string());
        for (const auto& [key, value] : metadata) model->set_rt_info(value, key);
        ov::save_model(model, xml.string(), /*compress_to_fp16=*/false);
    } catch (const ov::Exception& error) {
        core::fail("{}: this {} cannot be written; {}", file.string(), name,
                   backends::error_message(error));
    }
    fs::rename(weights, weights_beside(file, GraphFormat::openvino));
    fs::rename(xml, file);
}

void write_graph(const OnnxGraph& graph, const fs::path& file, const std::string& name,
                 const Metadata& metadata, GraphFormat format) {
    if (format == GraphFormat::onnx) graph.write(file, name, metadata);
    else write_for_openvino(graph, file, name, metadata);
}

graph::Shape of_one(graph::Shape shape) {
    shape.insert(shape.begin(), 1);
    return shape;
}

OnnxValue input(OnnxGraph& graph, const std::string& name, const graph::Shape& shape,
                at::ScalarType type = at::kFloat) {
    return graph.input(name, type, shape);
}

/// Lowers `recorded` and makes its first output an output of the graph called `name`.
void lower(OnnxGraph& graph, const std::string& name, const backends::Parameters& parameters,
           const graph::Graph& recorded, const std::vector<OnnxValue>& inputs) {
    const graph::Shape& shape = recorded.shape(recorded.outputs[0]);
    graph.output(name, OnnxOps(graph, parameters).run(recorded, inputs)[0],
                 {shape.begin() + 1, shape.end()});
}

/// The conditioning input: the one-hot row of a class, or the encoding of a prompt.
OnnxValue labels_of(OnnxGraph& graph, const models::Model& model) {
    const networks::Network& network = model.network;
    const graph::Shape one = network.label_shape(1);
    if (network.tokens > 0 || model.reads_text())
        return input(graph, "text", {one.begin() + 1, one.end()});
    const std::string ids = graph.input("class", at::kLong, {}),
                      rows = graph.constant("one row a class", at::eye(network.label_dim));
    return graph.node("Gather", {rows, ids}, "class", {{"axis", std::int64_t{0}}});
}

/// One step from standard normal noise to samples.
void lower_student(OnnxGraph& graph, const models::Model& model) {
    const networks::Network& network = model.network;
    const OneStepFactors factors = one_step_factors(model);
    const graph::Graph recorded = graph::record(
        networks::input_shapes(network).list(),
        [&](graph::Builder& ops, std::span<const Value> in) {
            const Value noise = in[0];
            networks::Inputs inputs{ops.scale(noise, factors.in), in[1]};
            if (network.label_dim > 0) inputs.labels = in[2];
            const Value raw = ops.scale(network.forward(ops, inputs).raw, factors.out);
            return std::vector{ops.add(ops.scale(noise, factors.skip), raw)};
        });
    const Tensor level =
        model.noise.preconditioning(at::full({1}, model.noise.sigma_max, at::kDouble)).c_noise;
    networks::InputsOf<OnnxValue> inputs{input(graph, "noise", network.data_shape),
                                         level.to(at::kFloat)};
    if (network.label_dim > 0) inputs.labels = labels_of(graph, model);
    lower(graph, "sample", model.parameters, recorded, inputs.list());
}

void lower_network(OnnxGraph& graph, const models::Model& model) {
    networks::InputsOf<OnnxValue> inputs{input(graph, "x", model.network.data_shape),
                                         input(graph, "c_noise", {})};
    if (model.network.label_dim > 0) inputs.labels = labels_of(graph, model);
    lower(graph, "raw", model.parameters,
          *networks::graph_of(model.network, networks::input_shapes(model.network)), inputs.list());
}

void write_model_graph(const models::Model& model, const fs::path& file, GraphFormat format) {
    OnnxGraph graph;
    if (default_sampling(model).method == Sampling::Method::one_step) lower_student(graph, model);
    else lower_network(graph, model);
    write_graph(graph, file, model.network.architecture,
                {{"atelier.config", models::json_of(model).dump()},
                 {"atelier.hash", backends::hash_of(model.parameters)}},
                format);
}

/// A part of a diffusers directory: a function of inputs with the names that diffusers' pipeline
/// uses, and the name of its output.
struct Part {
    struct Port {
        std::string name;
        graph::Shape shape;  // of one sample
        at::ScalarType type = at::kFloat;
    };
    std::vector<Port> inputs;
    std::string output;
    graph::Body forward;
};

void write_part(const fs::path& folder, const backends::Parameters& parameters, GraphFormat format,
                const Part& part) {
    OnnxGraph graph;
    std::vector<graph::Shape> shapes;
    std::vector<OnnxValue> inputs;
    for (const Part::Port& port : part.inputs) {
        shapes.push_back(of_one(port.shape));
        inputs.push_back(input(graph, port.name, port.shape, port.type));
    }
    const graph::Graph recorded =
        graph::record(shapes, [&](graph::Builder& ops, std::span<const Value> in) {
            return std::vector{part.forward(ops, in)};
        });
    lower(graph, part.output, parameters, recorded, inputs);
    fs::create_directories(folder);
    write_graph(graph, folder / (format == GraphFormat::onnx ? "model.onnx" : "openvino_model.xml"),
                folder.filename().string(), {}, format);
}

void write_parts(const models::DiffusersDirectory& from, const fs::path& to, GraphFormat format) {
    const networks::SdUnet unet = from.unet();
    const networks::SdVae vae = from.vae();
    const networks::ClipText text = from.text();
    const std::int64_t side = unet.sample_size, pixels = side * vae.factor();
    using graph::Builder;
    using In = std::span<const Value>;
    write_part(to / "text_encoder", from.text_weights().map(), format,
               {{{"input_ids", {text.positions}, at::kInt}},
                "last_hidden_state",
                [&](Builder& ops, In in) { return text.forward(ops, in[0]); }});
    write_part(
        to / "unet", from.unet_weights().map(), format,
        {{{"sample", {unet.in_channels, side, side}},
          {"timestep", {}},
          {"encoder_hidden_states", {text.positions, unet.context_width}}},
         "out_sample",
         [&](Builder& ops, In in) { return unet.forward(ops, in[0], in[1], in[2]).predicted; }});
    const backends::Parameters vae_weights = from.vae_weights().map();
    write_part(to / "vae_decoder", vae_weights, format,
               {{{"latent_sample", {vae.latent_channels, side, side}}},
                "sample",
                [&](Builder& ops, In in) { return vae.decode(ops, in[0]); }});
    write_part(to / "vae_encoder", vae_weights, format,
               {{{"sample", {vae.image_channels, pixels, pixels}}},
                "latent_parameters",
                [&](Builder& ops, In in) { return vae.encode(ops, in[0]); }});
}

nlohmann::json pipeline_index() {
    nlohmann::json index{{"_class_name", "OnnxStableDiffusionPipeline"},
                         {"requires_safety_checker", false},
                         {"feature_extractor", {nullptr, nullptr}},
                         {"safety_checker", {nullptr, nullptr}}};
    for (const char* part : {"text_encoder", "unet", "vae_decoder", "vae_encoder"})
        index[part] = {"diffusers", "OnnxRuntimeModel"};
    index["tokenizer"] = {"transformers", "CLIPTokenizer"};
    return index;
}

}  // namespace

std::optional<GraphFormat> graph_format(const std::string& name) {
    if (name == "onnx") return GraphFormat::onnx;
    if (name == "openvino") return GraphFormat::openvino;
    return std::nullopt;
}

void export_model(const fs::path& directory, const fs::path& file, GraphFormat format) {
    if (file.extension() != extension_of(format))
        throw core::UsageError(
            fmt::format("{}: the file name must end in {}", file.string(), extension_of(format)));
    for (const fs::path& one : {file, weights_beside(file, format)}) {
        if (fs::exists(one)) core::fail("{}: exists already; choose another name", one.string());
    }
    write_model_graph(models::read_model(directory, at::kCPU, models::Weights::mapped), file,
                      format);
}

void export_ensemble(const models::Ensemble& ensemble, const fs::path& directory,
                     GraphFormat format) {
    core::create_directory_atomically(directory, [&](const fs::path& place) {
        for (std::size_t k = 0; k < ensemble.students.size(); ++k) {
            const models::Model student = models::read_student(
                ensemble, static_cast<std::int64_t>(k), at::kCPU, models::Weights::mapped);
            write_model_graph(student, place / fmt::format("student-{}{}", k, extension_of(format)),
                              format);
        }
        fs::copy_file(ensemble.directory / "ensemble.json", place / "ensemble.json");
    });
}

void export_diffusers(const models::DiffusersDirectory& from, const fs::path& directory,
                      GraphFormat format) {
    core::create_directory_atomically(directory, [&](const fs::path& place) {
        write_parts(from, place, format);
        for (const char* part : {"tokenizer", "scheduler", "text_encoder", "unet"})
            models::copy_texts(from.path() / part, place / part);
        for (const char* part : {"vae_decoder", "vae_encoder"})
            models::copy_texts(from.path() / "vae", place / part);
        nlohmann::json index = pipeline_index();
        index["scheduler"] = core::read_json(from.path() / "model_index.json")
                                 .value("scheduler", nlohmann::json::array());
        core::write_json(place / "model_index.json", index);
    });
}

}  // namespace atelier::inference
