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
#include "atelier/core/log.h"
#include "atelier/core/signals.h"
#include "atelier/inference/generator.h"
#include "atelier/inference/prompted_generator.h"
#include "atelier/metrics/caption_measuring.h"
#include "atelier/models/diffusers_directory.h"
#include "atelier/models/identify_path.h"

/// The native half of the Python module. python/atelier/ adds types, checks and documentation.
namespace atelier::python {

namespace nb = nanobind;

namespace {

/// A numpy array that shares the tensor's memory.
nb::object array_of(const Tensor& tensor) {
    auto* owned = new Tensor(tensor.contiguous());
    const nb::capsule owner(owned, [](void* one) noexcept { delete static_cast<Tensor*>(one); });
    const std::vector<std::size_t> shape(owned->sizes().begin(), owned->sizes().end());
    const auto type = owned->scalar_type() == at::kByte   ? nb::dtype<std::uint8_t>()
                      : owned->scalar_type() == at::kLong ? nb::dtype<std::int64_t>()
                                                          : nb::dtype<float>();
    return nb::ndarray<nb::numpy>(owned->mutable_data_ptr(), shape.size(), shape.data(), owner,
                                  nullptr, type)
        .cast();
}

nb::object object_of(const nlohmann::json& json) {
    return nb::module_::import_("json").attr("loads")(json.dump());
}

std::uint64_t seed_of(std::int64_t seed) {
    if (seed < 0) throw core::UsageError(fmt::format("seed is {}; it must be 0 or more", seed));
    return static_cast<std::uint64_t>(seed);
}

using Classes = std::vector<std::int64_t>;

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

/// A generator that several Python threads may use: calls run one after the other and without the
/// interpreter's lock.
template <class Generator>
class Shared {
protected:
    explicit Shared(std::filesystem::path path) : path_(std::move(path)) {
        fail_in_forked_process();
    }

    /// In a forked process the generator is leaked: destroying it would wait for missing threads.
    ~Shared() {
        if (forked_from_a_computing_process()) (void)generator_.release();
    }

    template <class Work>
    auto exclusively(const Work& work) {
        begin_to_compute();
        const nb::gil_scoped_release release_lock;
        const std::lock_guard one_at_a_time(busy_);
        return work(*generator_);
    }

    /// Evaluates this model with `measure` under the seeds `seed`, ..., `seed` + `seeds` - 1.
    template <class Measure>
    nlohmann::json run_evaluation(metrics::EvaluationConfig config, std::int64_t seed,
                                  std::int64_t seeds, const Measure& measure) {
        config.device = generator_->engine().device;
        config.seeds.clear();
        for (std::int64_t i = 0; i < seeds; ++i)
            config.seeds.push_back(seed_of(seed) + static_cast<std::uint64_t>(i));
        const std::string name = path_.string();
        return exclusively([&](Generator& generator) {
            return measure(config, {{name, &generator}}).at("models").at(name);
        });
    }

    nlohmann::json facts_with(nlohmann::json facts) const {
        facts.update({{"sampler", inference::name_of(generator_->sampling().method)},
                      {"evaluations", generator_->sampling().evaluations()},
                      {"engine", inference::name_of(generator_->engine().kind)},
                      {"precision", inference::name_of(generator_->engine().precision)}});
        return facts;
    }

    const std::filesystem::path path_;
    std::unique_ptr<Generator> generator_;

private:
    std::mutex busy_;
};

/// A model or ensemble conditioned on classes.
class Ensemble : Shared<inference::Generator> {
public:
    Ensemble(const std::filesystem::path& path, const std::string& engine,
             const std::string& precision, const std::string& device, const std::string& sampler,
             const std::optional<std::int64_t>& steps)
        : Shared(path) {
        const nb::gil_scoped_release release_lock;
        if (models::is_diffusers_directory(path)) {
            throw core::UsageError(path.string() +
                                   ": is a diffusers directory, which Python does not read; draw "
                                   "from it with: atelier sample " +
                                   path.string() +
                                   " --prompt WORDS --out x.png; ensembles and teachers that a run "
                                   "made of it are read here");
        }
        if (!models::is_ensemble_directory(path))
            begin_to_compute();  // a single model is compiled now, students on first use
        generator_ = inference::open_generator(path, inference::sampling_of(sampler, steps),
                                               inference::engine_of(engine, precision, device));
    }

    Tensor sample(std::int64_t count, std::int64_t seed, const Classes& classes) {
        return exclusively([&](inference::Generator& generator) {
            const auto request =
                inference::sample_request(count, seed_of(seed), classes, generator.prior());
            return data::to_user_space(generator.spec(), inference::draw_all(generator, request));
        });
    }

    Tensor labels(std::int64_t count, std::int64_t seed, const Classes& classes) const {
        return at::tensor(
            inference::sample_request(count, seed_of(seed), classes, generator_->prior()).classes,
            at::kLong);
    }

    Tensor route(const Classes& classes) const {
        Classes students;
        for (const std::int64_t one : classes) students.push_back(generator_->student_of(one));
        return at::tensor(students, at::kLong);
    }

    nlohmann::json evaluate(const std::string& data, const std::string& reference,
                            std::int64_t count, std::int64_t seed, std::int64_t seeds,
                            const std::string& split, const std::string& classifier,
                            const std::string& inception, bool latency) {
        return run_evaluation({.data = data,
                               .split = split,
                               .classifier = classifier,
                               .inception = inception,
                               .reference = reference,
                               .count = count,
                               .latency = latency},
                              seed, seeds, metrics::measure);
    }

    std::string hash() {
        return exclusively(
            [](inference::Generator& generator) { return inference::hash_of(generator); });
    }

    std::int64_t parse_class(const std::string& word) const {
        return conditions::parse_class(word, generator_->spec().class_names,
                                       generator_->partition().classes());
    }

    /// The constant properties, as JSON.
    nlohmann::json facts() const {
        const data::SampleSpec& spec = generator_->spec();
        return facts_with(
            {{"kind", spec.kind == data::SampleSpec::Kind::image ? "image" : "points"},
             {"shape", spec.shape},
             {"class_names", spec.class_names},
             {"partition", conditions::to_json(generator_->partition())},
             {"prior", generator_->prior().weights}});
    }
};

/// A model or ensemble conditioned on prompts.
class PromptEnsemble : Shared<inference::PromptedGenerator> {
public:
    PromptEnsemble(const std::filesystem::path& path, const std::string& engine,
                   const std::string& precision, const std::string& device,
                   const std::string& sampler, const std::optional<std::int64_t>& steps,
                   const std::optional<double>& guidance)
        : Shared(path) {
        const nb::gil_scoped_release release_lock;
        begin_to_compute();
        generator_ = std::make_unique<inference::PromptedGenerator>(
            path, inference::sampling_of(sampler, steps), guidance,
            inference::engine_of(engine, precision, device));
    }

    /// Prompts are repeated in order up to the count.
    Tensor sample(std::int64_t count, std::int64_t seed, const std::vector<std::string>& prompts) {
        const inference::SampleRequest numbered =
            inference::sample_request(count, seed_of(seed), {0}, {{1.0}});
        inference::PromptSampleRequest request{numbered.seed, numbered.numbers, {}};
        for (std::int64_t i = 0; i < count; ++i)
            request.prompts.push_back(prompts[static_cast<std::size_t>(i) % prompts.size()]);
        return exclusively([&](inference::PromptedGenerator& generator) {
            return generator.to_pixels(generator.draw(request));
        });
    }

    Tensor route(const std::vector<std::string>& prompts) {
        return exclusively([&](const inference::PromptedGenerator& generator) {
            const Tensor embeddings = generator.encoder().embed(prompts);
            Classes students;
            for (std::int64_t i = 0; i < embeddings.size(0); ++i)
                students.push_back(generator.route(embeddings[i]).student);
            return at::tensor(students, at::kLong);
        });
    }

    /// The end of each prompt that exceeds the tokens which the model reads.
    std::vector<std::string> unread(const std::vector<std::string>& prompts) {
        return exclusively([&](const inference::PromptedGenerator& generator) {
            std::vector<std::string> unread_ends;
            for (const std::string& prompt : prompts)
                unread_ends.push_back(generator.encoder().tokenizer.truncated_tail(prompt));
            return unread_ends;
        });
    }

    nlohmann::json evaluate(const std::string& data, std::int64_t count, std::int64_t seed,
                            std::int64_t seeds, const std::string& split,
                            const std::string& classifier, bool latency) {
        return run_evaluation({.data = data,
                               .split = split,
                               .classifier = classifier,
                               .count = count,
                               .latency = latency},
                              seed, seeds, metrics::measure_captions);
    }

    std::string hash() {
        return exclusively([](inference::PromptedGenerator& generator) {
            return inference::hash_of(generator.hashes());
        });
    }
    std::vector<std::string> hashes() {
        return exclusively(
            [](inference::PromptedGenerator& generator) { return generator.hashes(); });
    }

    nlohmann::json facts() const {
        return facts_with({{"kind", "image"},
                           {"shape", generator_->image_shape()},
                           {"class_names", nlohmann::json::array()},
                           {"prior", nlohmann::json::array()},
                           {"partition",
                            {{"students", generator_->students()},
                             {"method", generator_->partition_method()},
                             {"hash", generator_->partition_hash()},
                             {"owner", nlohmann::json::array()}}}});
    }
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

void translate(const std::exception_ptr& thrown, void*) {
    try {
        std::rethrow_exception(thrown);
    } catch (const core::Interrupted& stop) {
        if (!PyErr_Occurred()) PyErr_SetString(PyExc_KeyboardInterrupt, stop.what());
    } catch (const core::UsageError& error) {
        PyErr_SetString(usage_error_type, error.what());
    } catch (const std::bad_alloc& error) {
        PyErr_SetString(PyExc_MemoryError, backends::error_message(error).c_str());
    } catch (const std::exception& error) {
        PyErr_SetString(error_type, backends::error_message(error).c_str());
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
                      const std::string&, const std::string&, const std::optional<std::int64_t>&>(),
             nb::arg("path"), nb::arg("engine"), nb::arg("precision"), nb::arg("device"),
             nb::arg("sampler"), nb::arg("steps").none())
        .def(
            "sample",
            [](Ensemble& self, std::int64_t count, std::int64_t seed, const Classes& classes) {
                return array_of(self.sample(count, seed, classes));
            },
            nb::arg("count"), nb::arg("seed"), nb::arg("classes"))
        .def(
            "labels",
            [](const Ensemble& self, std::int64_t count, std::int64_t seed,
               const Classes& classes) { return array_of(self.labels(count, seed, classes)); },
            nb::arg("count"), nb::arg("seed"), nb::arg("classes"))
        .def(
            "route",
            [](const Ensemble& self, const Classes& classes) {
                return array_of(self.route(classes));
            },
            nb::arg("classes"))
        .def(
            "evaluate",
            [](Ensemble& self, const std::string& data, const std::string& reference,
               std::int64_t count, std::int64_t seed, std::int64_t seeds, const std::string& split,
               const std::string& classifier, const std::string& inception, bool latency) {
                return object_of(self.evaluate(data, reference, count, seed, seeds, split,
                                               classifier, inception, latency));
            },
            nb::arg("data"), nb::arg("reference"), nb::arg("count"), nb::arg("seed"),
            nb::arg("seeds"), nb::arg("split"), nb::arg("classifier"), nb::arg("inception"),
            nb::arg("latency"))
        .def("hash", &Ensemble::hash)
        .def("class_named", &Ensemble::parse_class, nb::arg("word"))
        .def("facts", [](const Ensemble& self) { return object_of(self.facts()); });
    nb::class_<PromptEnsemble>(module, "PromptEnsemble")
        .def(nb::init<const std::filesystem::path&, const std::string&, const std::string&,
                      const std::string&, const std::string&, const std::optional<std::int64_t>&,
                      const std::optional<double>&>(),
             nb::arg("path"), nb::arg("engine"), nb::arg("precision"), nb::arg("device"),
             nb::arg("sampler"), nb::arg("steps").none(), nb::arg("guidance").none())
        .def(
            "sample",
            [](PromptEnsemble& self, std::int64_t count, std::int64_t seed,
               const std::vector<std::string>& prompts) {
                return array_of(self.sample(count, seed, prompts));
            },
            nb::arg("count"), nb::arg("seed"), nb::arg("prompts"))
        .def(
            "unread",
            [](PromptEnsemble& self, const std::vector<std::string>& prompts) {
                return self.unread(prompts);
            },
            nb::arg("prompts"))
        .def(
            "route",
            [](PromptEnsemble& self, const std::vector<std::string>& prompts) {
                return array_of(self.route(prompts));
            },
            nb::arg("prompts"))
        .def(
            "evaluate",
            [](PromptEnsemble& self, const std::string& data, std::int64_t count, std::int64_t seed,
               std::int64_t seeds, const std::string& split, const std::string& classifier,
               bool latency) {
                return object_of(
                    self.evaluate(data, count, seed, seeds, split, classifier, latency));
            },
            nb::arg("data"), nb::arg("count"), nb::arg("seed"), nb::arg("seeds"), nb::arg("split"),
            nb::arg("classifier"), nb::arg("latency"))
        .def("hash", &PromptEnsemble::hash)
        .def("hashes", &PromptEnsemble::hashes)
        .def("facts", [](const PromptEnsemble& self) { return object_of(self.facts()); });
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
    module.def("reads_prompts", &inference::reads_prompts, nb::arg("path"));
    module.def(
        "model_at",
        [](const std::filesystem::path& path) { return models::model_at(path).string(); },
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
