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

#include "atelier/conditions/class_names.h"
#include "atelier/core/error.h"
#include "atelier/core/image_file.h"
#include "atelier/core/log.h"
#include "atelier/core/signals.h"
#include "atelier/evaluation/caption_measuring.h"
#include "atelier/inference/generator.h"
#include "atelier/inference/prompted_generator.h"
#include "atelier/models/diffusers_directory.h"
#include "atelier/models/what_is.h"
#include "atelier/ops/error_words.h"
#include "atelier/ops/thread_limit.h"

/// The half of the Python module that speaks to the rooms. python/atelier/ gives it names, types and words.
namespace atelier::python {

namespace nb = nanobind;

namespace {

/// Array and tensor share their memory.
nb::object array_of(const Tensor& tensor) {
    auto* kept = new Tensor(tensor.contiguous());
    const nb::capsule owner(kept, [](void* one) noexcept { delete static_cast<Tensor*>(one); });
    const std::vector<std::size_t> shape(kept->sizes().begin(), kept->sizes().end());
    const auto type = kept->scalar_type() == at::kByte ? nb::dtype<std::uint8_t>() : kept->scalar_type() == at::kLong ? nb::dtype<std::int64_t>() : nb::dtype<float>();
    return nb::ndarray<nb::numpy>(kept->mutable_data_ptr(), shape.size(), shape.data(), owner, nullptr, type).cast();
}

nb::object object_of(const nlohmann::json& json) { return nb::module_::import_("json").attr("loads")(json.dump()); }

std::uint64_t seed_of(std::int64_t seed) {
    if (seed < 0) throw core::UsageError(fmt::format("seed is {}; it must be 0 or more", seed));
    return static_cast<std::uint64_t>(seed);
}

using Classes = std::vector<std::int64_t>;

/// The process whose threads compute: 0 until something was.
std::atomic<pid_t> computing_process{0};

bool forked_from_a_computing_process() {
    const pid_t one = computing_process.load();
    return one != 0 && one != ::getpid();
}

/// A fork takes along the one thread that calls it. LibTorch's, OpenVINO's and our own others are gone, yet waited for, and whoever held a lock never gives it up.
void refuse_in_forked_process() {
    if (forked_from_a_computing_process()) {
        core::fail("this process was forked (os.fork, multiprocessing) from one that had computed with atelier already, and its threads did not come along; start it with "
                   "multiprocessing.get_context(\"spawn\") or \"forkserver\", or load and draw in the forked processes alone");
    }
}

/// From here on threads may be there.
void begin_to_compute() {
    pid_t none = 0;
    computing_process.compare_exchange_strong(none, ::getpid());
    refuse_in_forked_process();
}

/// A generator that several Python threads may ask; it answers them one after the other, and none of them holds the interpreter's lock meanwhile.
template <class Generator>
class Shared {
protected:
    explicit Shared(std::filesystem::path path) : path_(std::move(path)) { refuse_in_forked_process(); }

    /// In a forked process nothing can be ended that has threads: it is left to the end of the process.
    ~Shared() {
        if (forked_from_a_computing_process()) (void)generator_.release();
    }

    template <class Work>
    auto alone(const Work& work) {
        begin_to_compute();
        const nb::gil_scoped_release others_run;
        const std::lock_guard one_at_a_time(busy_);
        return work(*generator_);
    }

    /// Asks `measure` for what is made of this model under `seeds` seeds, the first of which is `seed`.
    template <class Measure>
    nlohmann::json measured(evaluation::Measuring measuring, std::int64_t seed, std::int64_t seeds, const Measure& measure) {
        measuring.device = generator_->engine().device;
        measuring.seeds.clear();
        for (std::int64_t i = 0; i < seeds; ++i) measuring.seeds.push_back(seed_of(seed) + static_cast<std::uint64_t>(i));
        const std::string name = path_.string();
        return alone([&](Generator& generator) { return measure(measuring, {{name, &generator}}).at("models").at(name); });
    }

    nlohmann::json facts_with(nlohmann::json facts) const {
        facts.update({{"sampler", inference::name_of(generator_->sampling().method)}, {"evaluations", generator_->sampling().evaluations()},
                      {"engine", inference::name_of(generator_->engine().kind)}, {"precision", inference::name_of(generator_->engine().precision)}});
        return facts;
    }

    const std::filesystem::path path_;
    std::unique_ptr<Generator> generator_;

private:
    std::mutex busy_;
};

/// A model that is told of classes.
class Ensemble : Shared<inference::Generator> {
public:
    Ensemble(const std::filesystem::path& path, const std::string& engine, const std::string& precision, const std::string& device,
             const std::string& sampler, const std::optional<std::int64_t>& steps)
        : Shared(path) {
        const nb::gil_scoped_release others_run;
        if (models::is_diffusers_directory(path)) {
            throw core::UsageError(path.string() + ": is a diffusers directory, which Python does not read; draw from it with: atelier sample " + path.string() +
                                   " --prompt WORDS --out x.png; ensembles and teachers that a run made of it are read here");
        }
        if (!models::is_ensemble_directory(path)) begin_to_compute();  // a single model is arranged at once, an ensemble's when they are first asked
        generator_ = inference::open_generator(path, inference::sampling_of(sampler, steps), inference::engine_of(engine, precision, device));
    }

    Tensor sample(std::int64_t count, std::int64_t seed, const Classes& classes) {
        return alone([&](inference::Generator& generator) {
            const auto wanted = inference::plan(count, seed_of(seed), classes, generator.prior());
            return models::to_user_space(generator.form(), inference::draw_in_parts(generator, wanted));
        });
    }

    Tensor labels(std::int64_t count, std::int64_t seed, const Classes& classes) const {
        return at::tensor(inference::plan(count, seed_of(seed), classes, generator_->prior()).classes, at::kLong);
    }

    Tensor route(const Classes& classes) const {
        Classes students;
        for (const std::int64_t one : classes) students.push_back(generator_->student_of(one));
        return at::tensor(students, at::kLong);
    }

    nlohmann::json evaluate(const std::string& data, const std::string& reference, std::int64_t count, std::int64_t seed, std::int64_t seeds,
                            const std::string& split, const std::string& classifier, const std::string& inception, bool latency) {
        return measured({.data = data, .split = split, .classifier = classifier, .inception = inception, .reference = reference, .count = count, .latency = latency}, seed, seeds,
                        evaluation::measure);
    }

    std::string hash() {
        return alone([](inference::Generator& generator) { return inference::hash_of(generator); });
    }

    std::int64_t class_named(const std::string& word) const {
        return conditions::class_named(word, generator_->form().class_names, generator_->partition().classes());
    }

    /// What does not change, as JSON.
    nlohmann::json facts() const {
        const models::DataForm& form = generator_->form();
        return facts_with({{"kind", form.kind == models::DataForm::Kind::image ? "image" : "points"}, {"shape", form.shape}, {"class_names", form.class_names},
                {"partition", conditions::to_json(generator_->partition())}, {"prior", generator_->prior().weights}});
    }
};

/// A model that reads prompts.
class PromptEnsemble : Shared<inference::PromptedGenerator> {
public:
    PromptEnsemble(const std::filesystem::path& path, const std::string& engine, const std::string& precision, const std::string& device,
                   const std::string& sampler, const std::optional<std::int64_t>& steps, const std::optional<double>& guidance)
        : Shared(path) {
        const nb::gil_scoped_release others_run;
        begin_to_compute();
        generator_ = std::make_unique<inference::PromptedGenerator>(path, inference::sampling_of(sampler, steps), guidance, inference::engine_of(engine, precision, device));
    }

    /// Prompts are repeated in order up to the count.
    Tensor sample(std::int64_t count, std::int64_t seed, const std::vector<std::string>& prompts) {
        const inference::Wanted numbers = inference::plan(count, seed_of(seed), {0}, {{1.0}});
        inference::Prompted wanted{numbers.seed, numbers.numbers, {}};
        for (std::int64_t i = 0; i < count; ++i) wanted.prompts.push_back(prompts[static_cast<std::size_t>(i) % prompts.size()]);
        return alone([&](inference::PromptedGenerator& generator) { return generator.pictures(generator.draw(wanted)); });
    }

    Tensor route(const std::vector<std::string>& prompts) {
        return alone([&](const inference::PromptedGenerator& generator) {
            const Tensor embeddings = generator.encoder().embed(prompts);
            Classes students;
            for (std::int64_t i = 0; i < embeddings.size(0); ++i) students.push_back(generator.place(embeddings[i]).student);
            return at::tensor(students, at::kLong);
        });
    }

    /// The end of each prompt that is beyond the tokens which the model reads.
    std::vector<std::string> unread(const std::vector<std::string>& prompts) {
        return alone([&](const inference::PromptedGenerator& generator) {
            std::vector<std::string> rests;
            for (const std::string& prompt : prompts) rests.push_back(generator.encoder().tokenizer.unread(prompt));
            return rests;
        });
    }

    nlohmann::json evaluate(const std::string& data, std::int64_t count, std::int64_t seed, std::int64_t seeds, const std::string& split, const std::string& classifier, bool latency) {
        return measured({.data = data, .split = split, .classifier = classifier, .count = count, .latency = latency}, seed, seeds, evaluation::measure_captions);
    }

    std::string hash() {
        return alone([](inference::PromptedGenerator& generator) { return inference::hash_of(generator.hashes()); });
    }
    std::vector<std::string> hashes() {
        return alone([](inference::PromptedGenerator& generator) { return generator.hashes(); });
    }

    nlohmann::json facts() const {
        return facts_with({{"kind", "image"}, {"shape", generator_->picture_shape()}, {"class_names", nlohmann::json::array()}, {"prior", nlohmann::json::array()},
                {"partition", {{"students", generator_->students()}, {"method", generator_->partition_method()}, {"hash", generator_->partition_hash()}, {"owner", nlohmann::json::array()}}}});
    }
};

/// Python handles signals between its own instructions, of which there are none while we compute. What a handler raises stays set.
bool python_wants_to_stop() {
    const nb::gil_scoped_acquire interpreter;
    return PyErr_CheckSignals() != 0;
}

PyObject *error_type = nullptr, *usage_error_type = nullptr;

void make_error_types(nb::module_& module) {
    error_type = PyErr_NewExceptionWithDoc("atelier.Error", "What went wrong, where, and what to do about it, in plain words.", nullptr, nullptr);
    const nb::tuple both = nb::make_tuple(nb::borrow(error_type), nb::borrow(PyExc_ValueError));
    usage_error_type = PyErr_NewExceptionWithDoc("atelier.UsageError", "An argument is wrong: an Error that is a ValueError too.", both.ptr(), nullptr);
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
        PyErr_SetString(PyExc_MemoryError, ops::words_of(error).c_str());
    } catch (const std::exception& error) {
        PyErr_SetString(error_type, ops::words_of(error).c_str());
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
    module.doc() = "What atelier's Python module computes with; use it through atelier.";
    make_error_types(module);
    nb::register_exception_translator(translate);
    core::log::set_quiet(true);
    ops::limit_threads();
    core::also_ask_for_stop(python_wants_to_stop);
    nb::class_<Ensemble>(module, "Ensemble")
        .def(nb::init<const std::filesystem::path&, const std::string&, const std::string&, const std::string&, const std::string&, const std::optional<std::int64_t>&>(),
             nb::arg("path"), nb::arg("engine"), nb::arg("precision"), nb::arg("device"), nb::arg("sampler"), nb::arg("steps").none())
        .def("sample", [](Ensemble& self, std::int64_t count, std::int64_t seed, const Classes& classes) { return array_of(self.sample(count, seed, classes)); },
             nb::arg("count"), nb::arg("seed"), nb::arg("classes"))
        .def("labels", [](const Ensemble& self, std::int64_t count, std::int64_t seed, const Classes& classes) { return array_of(self.labels(count, seed, classes)); },
             nb::arg("count"), nb::arg("seed"), nb::arg("classes"))
        .def("route", [](const Ensemble& self, const Classes& classes) { return array_of(self.route(classes)); }, nb::arg("classes"))
        .def("evaluate",
             [](Ensemble& self, const std::string& data, const std::string& reference, std::int64_t count, std::int64_t seed, std::int64_t seeds,
                const std::string& split, const std::string& classifier, const std::string& inception, bool latency) {
                 return object_of(self.evaluate(data, reference, count, seed, seeds, split, classifier, inception, latency));
             },
             nb::arg("data"), nb::arg("reference"), nb::arg("count"), nb::arg("seed"), nb::arg("seeds"), nb::arg("split"), nb::arg("classifier"),
             nb::arg("inception"), nb::arg("latency"))
        .def("hash", &Ensemble::hash)
        .def("class_named", &Ensemble::class_named, nb::arg("word"))
        .def("facts", [](const Ensemble& self) { return object_of(self.facts()); });
    nb::class_<PromptEnsemble>(module, "PromptEnsemble")
        .def(nb::init<const std::filesystem::path&, const std::string&, const std::string&, const std::string&, const std::string&, const std::optional<std::int64_t>&,
                      const std::optional<double>&>(),
             nb::arg("path"), nb::arg("engine"), nb::arg("precision"), nb::arg("device"), nb::arg("sampler"), nb::arg("steps").none(), nb::arg("guidance").none())
        .def("sample",
             [](PromptEnsemble& self, std::int64_t count, std::int64_t seed, const std::vector<std::string>& prompts) { return array_of(self.sample(count, seed, prompts)); },
             nb::arg("count"), nb::arg("seed"), nb::arg("prompts"))
        .def("unread", [](PromptEnsemble& self, const std::vector<std::string>& prompts) { return self.unread(prompts); }, nb::arg("prompts"))
        .def("route", [](PromptEnsemble& self, const std::vector<std::string>& prompts) { return array_of(self.route(prompts)); }, nb::arg("prompts"))
        .def("evaluate",
             [](PromptEnsemble& self, const std::string& data, std::int64_t count, std::int64_t seed, std::int64_t seeds, const std::string& split, const std::string& classifier,
                bool latency) { return object_of(self.evaluate(data, count, seed, seeds, split, classifier, latency)); },
             nb::arg("data"), nb::arg("count"), nb::arg("seed"), nb::arg("seeds"), nb::arg("split"), nb::arg("classifier"), nb::arg("latency"))
        .def("hash", &PromptEnsemble::hash)
        .def("hashes", &PromptEnsemble::hashes)
        .def("facts", [](const PromptEnsemble& self) { return object_of(self.facts()); });
    module.def("encode_png", [](const nb::ndarray<const std::uint8_t, nb::ndim<3>, nb::c_contig, nb::device::cpu>& pixels) {
        core::Image image{static_cast<int>(pixels.shape(0)), static_cast<int>(pixels.shape(1)), static_cast<int>(pixels.shape(2)), {}};
        image.pixels.assign(pixels.data(), pixels.data() + pixels.size());
        const std::vector<std::uint8_t> file = core::encode_png(image);
        return nb::bytes(file.data(), file.size());
    }, nb::arg("pixels"));
    module.attr("__version__") = ATELIER_VERSION;
    module.def("reads_prompts", &inference::reads_prompts, nb::arg("path"));
    module.def("model_at", [](const std::filesystem::path& path) { return models::model_at(path).string(); }, nb::arg("path"));
    module.def("read_partition", [](const std::filesystem::path& path) { return object_of(read_partition(path)); }, nb::arg("path"));
    module.def("read_object", [](const std::filesystem::path& path) { return object_of(read_object(path)); }, nb::arg("path"));
}

}  // namespace atelier::python
