#include <Python.h>

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/filesystem.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>
#include <unistd.h>

#include <atomic>
#include <mutex>

#include "atelier/backends/torch/error_message.h"
#include "atelier/backends/torch/thread_limit.h"
#include "atelier/conditions/class_names.h"
#include "atelier/core/error.h"
#include "atelier/core/image_file.h"
#include "atelier/core/json_file.h"
#include "atelier/core/log.h"
#include "atelier/core/signals.h"
#include "atelier/inference/pipeline.h"
#include "atelier/metrics/measuring.h"
#include "atelier/models/ensemble.h"
#include "atelier/models/identify_path.h"

/// The native half of the Python module. python/atelier/ adds types, checks and documentation.
namespace atelier::python {

namespace nb = nanobind;

namespace {

/// A numpy array that shares the tensor's memory.
template <class... Number>
nb::ndarray<nb::numpy, Number...> array_of(const Tensor& tensor) {
    auto* owned = new Tensor(tensor.contiguous());
    const nb::capsule owner(owned, [](void* one) noexcept { delete static_cast<Tensor*>(one); });
    const std::vector<std::size_t> shape(owned->sizes().begin(), owned->sizes().end());
    const auto type = owned->scalar_type() == at::kByte   ? nb::dtype<std::uint8_t>()
                      : owned->scalar_type() == at::kLong ? nb::dtype<std::int64_t>()
                                                          : nb::dtype<float>();
    return nb::ndarray<nb::numpy, Number...>(owned->mutable_data_ptr(), shape.size(), shape.data(),
                                             owner, nullptr, type);
}

nb::dict object_of(const nlohmann::json& json) {
    return nb::cast<nb::dict>(nb::module_::import_("json").attr("loads")(core::json_text(json)));
}

std::uint64_t seed_of(std::int64_t seed) {
    if (seed < 0) throw core::UsageError(fmt::format("seed is {}; it must be 0 or more", seed));
    return static_cast<std::uint64_t>(seed);
}

using Classes = std::vector<std::int64_t>;
using Prompts = std::vector<std::string>;

/// The process that has started computing threads; 0 before anything was computed.
std::atomic<pid_t> computing_process{0};

bool forked_from_a_computing_process() {
    const pid_t one = computing_process.load();
    return one != 0 && one != ::getpid();
}

/// A forked process has only the thread that called fork. Those of LibTorch, OpenVINO and our own
/// pool are missing but still waited for, and locks that they held are never released.
void fail_in_forked_process() {
    if (forked_from_a_computing_process()) {
        core::fail(
            "this process was forked (os.fork, multiprocessing) from one that had computed with "
            "atelier already, whose threads it does not inherit; start it with "
            "multiprocessing.get_context(\"spawn\") or \"forkserver\", or load and draw only in "
            "the forked processes");
    }
}

/// Must be called before anything that may start threads.
void begin_to_compute() {
    pid_t none = 0;
    computing_process.compare_exchange_strong(none, ::getpid());
    fail_in_forked_process();
}

/// A pipeline that several Python threads may use: calls run one after the other and without the
/// interpreter's lock.
class Ensemble {
private:
    template <class Work>
    auto exclusively(const Work& work) {
        begin_to_compute();
        const nb::gil_scoped_release release_lock;
        const std::lock_guard one_at_a_time(busy_);
        return work(*pipeline_);
    }

public:
    Ensemble(const std::filesystem::path& path, const std::string& engine,
             const std::string& precision, const std::string& device, const std::string& sampler,
             const std::optional<std::int64_t>& steps, const std::optional<double>& guidance,
             const std::string& negative, std::int64_t height, std::int64_t width)
        : path_(path) {
        fail_in_forked_process();
        const nb::gil_scoped_release release_lock;
        // A single model is compiled now, students on first use; a text encoder computes now.
        const bool prompts = inference::reads_prompts(path),
                   single = !models::is_ensemble_directory(path);
        if (prompts || single) begin_to_compute();
        pipeline_ = inference::Pipeline::load(
            path, {.engine = inference::engine_of(engine, precision, device),
                   .sampler = sampler,
                   .steps = steps,
                   .guidance = guidance,
                   .negative = negative,
                   .height = height,
                   .width = width});
        if (single && !prompts) pipeline_->preload(0);
    }

    /// In a forked process the pipeline is leaked: destroying it would wait for missing threads.
    ~Ensemble() {
        if (forked_from_a_computing_process()) (void)pipeline_.release();
    }

    /// Classes or prompts, whichever the model takes; repeated in order up to the count.
    Tensor sample(std::int64_t count, std::int64_t seed, const Classes& classes,
                  const Prompts& prompts) {
        return exclusively([&](inference::Pipeline& pipeline) {
            return pipeline.sample(requests(count, seed, classes, prompts));
        });
    }

    Tensor labels(std::int64_t count, std::int64_t seed, const Classes& classes) const {
        return at::tensor(inference::classes_of(requests(count, seed, classes, {})), at::kLong);
    }

    Tensor route(const Classes& classes, const Prompts& prompts) {
        std::vector<inference::Condition> conditions = inference::conditions_of(prompts);
        for (const std::int64_t one : classes) conditions.emplace_back(inference::ClassId{one});
        const auto students = [&](const inference::Pipeline& pipeline) {
            Classes owners;
            for (const auto& owner : pipeline.route(conditions)) owners.push_back(owner.student);
            return at::tensor(owners, at::kLong);
        };
        if (!pipeline_->reads_prompts()) return students(*pipeline_);  // computes nothing
        return exclusively(students);
    }

    /// The end of each prompt that exceeds the tokens which the model reads.
    std::vector<std::string> unread(const Prompts& prompts) const {
        std::vector<std::string> ends;
        for (const std::string& prompt : prompts)
            ends.push_back(pipeline_->conditioner().truncated_tail(prompt));
        return ends;
    }

    /// Evaluates under the seeds `seed`, ..., `seed` + `seeds` - 1.
    nlohmann::json evaluate(const std::string& data, const std::string& reference,
                            std::int64_t count, std::int64_t seed, std::int64_t seeds,
                            const std::string& split, const std::string& classifier,
                            const std::string& attributes, const std::string& inception,
                            bool latency) {
        metrics::EvaluationConfig config{.data = data,
                                         .split = split,
                                         .classifier = classifier,
                                         .attributes = attributes,
                                         .inception = inception,
                                         .reference = reference,
                                         .device = pipeline_->engine().device,
                                         .count = count,
                                         .latency = latency};
        config.seeds.clear();
        for (std::int64_t i = 0; i < seeds; ++i)
            config.seeds.push_back(seed_of(seed) + static_cast<std::uint64_t>(i));
        const std::string name = path_.string();
        return exclusively([&](inference::Pipeline& pipeline) {
            return metrics::measure(config, {{name, &pipeline}}).at("models").at(name);
        });
    }

    std::string hash() {
        return exclusively([](inference::Pipeline& pipeline) { return pipeline.hash(); });
    }
    std::vector<std::string> hashes() {
        return exclusively([](inference::Pipeline& pipeline) { return pipeline.hashes(); });
    }

    std::int64_t parse_class(const std::string& word) const {
        return conditions::parse_class(word, pipeline_->spec().class_names,
                                       pipeline_->partition().classes());
    }

    /// The constant properties, as JSON.
    nlohmann::json facts() const {
        const data::SampleSpec& spec = pipeline_->decoded_spec();
        nlohmann::json facts{
            {"reads_prompts", pipeline_->reads_prompts()},
            {"kind", spec.kind == data::SampleSpec::Kind::points ? "points" : "image"},
            {"shape", spec.shape},
            {"class_names", pipeline_->spec().class_names},
            {"partition", conditions::to_json(pipeline_->partition())},
            {"prior", pipeline_->prior().weights},
            {"sampler", inference::name_of(pipeline_->sampling().method)},
            {"evaluations", pipeline_->sampling().evaluations()},
            {"engine", inference::name_of(pipeline_->engine().kind)},
            {"precision", inference::name_of(pipeline_->engine().precision)}};
        if (pipeline_->reads_prompts())
            facts.update({{"class_names", nlohmann::json::array()},
                          {"prior", nlohmann::json::array()},
                          {"partition",
                           {{"students", pipeline_->students()},
                            {"method", pipeline_->partition().method},
                            {"hash", pipeline_->partition_hash()},
                            {"owner", nlohmann::json::array()}}}});
        return facts;
    }

private:
    std::vector<inference::SampleRequest> requests(std::int64_t count, std::int64_t seed,
                                                   const Classes& classes,
                                                   const Prompts& prompts) const {
        if (pipeline_->reads_prompts())
            return inference::prompt_requests(count, seed_of(seed), prompts);
        return inference::class_requests(count, seed_of(seed), classes, pipeline_->prior());
    }

    const std::filesystem::path path_;
    std::unique_ptr<inference::Pipeline> pipeline_;
    std::mutex busy_;
};

/// Runs Python's signal handlers, which it runs only between its own instructions, of which there
/// are none while we compute. An exception that a handler raises stays set.
bool python_wants_to_stop() {
    const nb::gil_scoped_acquire interpreter;
    return PyErr_CheckSignals() != 0;
}

PyObject *error_type = nullptr, *usage_error_type = nullptr;

void make_error_types(nb::module_& module) {
    error_type = PyErr_NewExceptionWithDoc(
        "atelier.Error", "What went wrong, where, and how to fix it.", nullptr, nullptr);
    const nb::tuple both = nb::make_tuple(nb::borrow(error_type), nb::borrow(PyExc_ValueError));
    usage_error_type = PyErr_NewExceptionWithDoc(
        "atelier.UsageError", "An argument is wrong: an Error that is a ValueError too.",
        both.ptr(), nullptr);
    module.attr("Error") = nb::borrow(error_type);
    module.attr("UsageError") = nb::borrow(usage_error_type);
}

/// A message may hold the name of a file that is not UTF-8, which PyErr_SetString would not take.
void raise(PyObject* type, const std::string& message) {
    PyObject* const text = PyUnicode_DecodeUTF8(
        message.data(), static_cast<Py_ssize_t>(message.size()), "backslashreplace");
    PyErr_SetObject(type, text);
    Py_XDECREF(text);
}

void translate(const std::exception_ptr& thrown, void*) {
    try {
        std::rethrow_exception(thrown);
    } catch (const core::Interrupted& stop) {
        if (!PyErr_Occurred()) raise(PyExc_KeyboardInterrupt, stop.what());
    } catch (const core::UsageError& error) {
        raise(usage_error_type, error.what());
    } catch (const std::bad_alloc& error) {
        raise(PyExc_MemoryError, backends::error_message(error));
    } catch (const std::exception& error) {
        raise(error_type, backends::error_message(error));
    }
}

nlohmann::json read_object(const std::filesystem::path& path) {
    const nlohmann::json json = core::read_json(path);
    return core::JsonObject(json, path.string()).json();
}

nlohmann::json read_partition(const std::filesystem::path& path) {
    return conditions::to_json(conditions::partition_from_json(read_object(path), path.string()));
}

}  // namespace

NB_MODULE(_atelier, module) {
    module.doc() = "The native half of atelier's Python module; use it through atelier.";
    make_error_types(module);
    nb::register_exception_translator(translate);
    core::log::set_quiet(true);
    backends::limit_threads();
    core::set_stop_check(python_wants_to_stop);
    nb::class_<Ensemble>(module, "Ensemble")
        .def(nb::init<const std::filesystem::path&, const std::string&, const std::string&,
                      const std::string&, const std::string&, const std::optional<std::int64_t>&,
                      const std::optional<double>&, const std::string&, std::int64_t,
                      std::int64_t>(),
             nb::arg("path"), nb::arg("engine"), nb::arg("precision"), nb::arg("device"),
             nb::arg("sampler"), nb::arg("steps").none(), nb::arg("guidance").none(),
             nb::arg("negative"), nb::arg("height"), nb::arg("width"))
        .def(
            "sample",
            [](Ensemble& self, std::int64_t count, std::int64_t seed, const Classes& classes,
               const Prompts& prompts) {
                return array_of(self.sample(count, seed, classes, prompts));
            },
            nb::arg("count"), nb::arg("seed"), nb::arg("classes"), nb::arg("prompts"))
        .def(
            "labels",
            [](const Ensemble& self, std::int64_t count, std::int64_t seed,
               const Classes& classes) {
                return array_of<std::int64_t>(self.labels(count, seed, classes));
            },
            nb::arg("count"), nb::arg("seed"), nb::arg("classes"))
        .def("unread", &Ensemble::unread, nb::arg("prompts"))
        .def(
            "route",
            [](Ensemble& self, const Classes& classes, const Prompts& prompts) {
                return array_of<std::int64_t>(self.route(classes, prompts));
            },
            nb::arg("classes"), nb::arg("prompts"))
        .def(
            "evaluate",
            [](Ensemble& self, const std::string& data, const std::string& reference,
               std::int64_t count, std::int64_t seed, std::int64_t seeds, const std::string& split,
               const std::string& classifier, const std::string& attributes,
               const std::string& inception, bool latency) {
                return object_of(self.evaluate(data, reference, count, seed, seeds, split,
                                               classifier, attributes, inception, latency));
            },
            nb::arg("data"), nb::arg("reference"), nb::arg("count"), nb::arg("seed"),
            nb::arg("seeds"), nb::arg("split"), nb::arg("classifier"), nb::arg("attributes"),
            nb::arg("inception"), nb::arg("latency"))
        .def("hash", &Ensemble::hash)
        .def("hashes", &Ensemble::hashes)
        .def("class_named", &Ensemble::parse_class, nb::arg("word"))
        .def("facts", [](const Ensemble& self) { return object_of(self.facts()); });
    module.def(
        "encode_png",
        [](const nb::ndarray<const std::uint8_t, nb::ndim<3>, nb::c_contig, nb::device::cpu>&
               pixels) {
            core::Image image{static_cast<int>(pixels.shape(0)),
                              static_cast<int>(pixels.shape(1)),
                              static_cast<int>(pixels.shape(2)),
                              {}};
            image.pixels.assign(pixels.data(), pixels.data() + pixels.size());
            const std::vector<std::uint8_t> file = core::encode_png(image);
            return nb::bytes(file.data(), file.size());
        },
        nb::arg("pixels"));
    module.attr("__version__") = ATELIER_VERSION;
    module.def(
        "model_at", [](const std::filesystem::path& path) { return models::model_at(path); },
        nb::arg("path"));
    module.def(
        "read_partition",
        [](const std::filesystem::path& path) { return object_of(read_partition(path)); },
        nb::arg("path"));
    module.def(
        "read_object",
        [](const std::filesystem::path& path) { return object_of(read_object(path)); },
        nb::arg("path"));
}

}  // namespace atelier::python
