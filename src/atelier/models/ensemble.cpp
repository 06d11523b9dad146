#include "atelier/models/ensemble.h"

#include "atelier/core/atomic_file.h"
#include "atelier/core/error.h"
#include "atelier/models/checksums.h"
#include "atelier/models/identify_path.h"
#include "atelier/models/latent_model.h"
#include "atelier/models/opened_model.h"
#include "atelier/models/prompt_encoder.h"

namespace atelier::models {

namespace fs = std::filesystem;

namespace {

constexpr std::int64_t version = 1;
constexpr std::int64_t max_students = 100'000;
constexpr const char* base_folder = "base";
constexpr const char* prompts_folder =
    "partition";  // of a prompt partition: partition.json and centroids.safetensors

/// A student's path must stay inside the ensemble.
fs::path inside(const fs::path& directory, const std::string& relative, const std::string& where) {
    const fs::path path = fs::path(relative).lexically_normal();
    if (path.is_absolute() || path.empty() || *path.begin() == "..") {
        core::fail("{}: the path \"{}\" leaves the ensemble's directory; paths must be relative",
                   where, relative);
    }
    return directory / path;
}

void check_prior(const conditions::Prior& prior, std::int64_t classes, const std::string& where) {
    double sum = 0;
    for (const double weight : prior.weights) {
        if (!(weight >= 0)) core::fail("{}: prior holds a negative weight", where);
        sum += weight;
    }
    if (prior.classes() != classes || !(sum > 0))
        core::fail("{}: prior needs a weight for each of the {} classes", where, classes);
}

/// Reads the prompt partition and checks it against the manifest.
void read_prompt_partition(Ensemble& ensemble, const core::JsonObject& json) {
    ensemble.prompts = conditions::read_prompt_partition(ensemble.directory / prompts_folder);
    ensemble.partition.students = ensemble.prompts->students();
    if (json.object("partition").text("hash") != ensemble.prompts->hash()) {
        core::fail("{}: names another partition than the one in {}; was one of them exchanged?",
                   json.where(), (ensemble.directory / prompts_folder).string());
    }
    if (!has_prompt_encoder(ensemble.directory))
        core::fail("{}: its students own prompts, but there is no text_encoder beside it",
                   json.where());
}

/// Copies the base weights of low-rank students, once.
void copy_base(const fs::path& from, const fs::path& to) {
    if (fs::exists(to)) return;
    fs::create_directories(to);
    fs::copy_file(from / "model.safetensors", to / "model.safetensors");
    write_card(to, read_card(from), {"model.safetensors"});
}

/// Records the checksums of all weights except the students', which are in their config.json.
void record_checksums(const fs::path& directory, nlohmann::json& manifest) {
    std::vector<std::string> files;
    for (const std::string& file : weights_below(directory)) {
        if (!file.starts_with("students/")) files.push_back(file);
    }
    manifest.erase(checksums_key);
    if (!files.empty()) manifest[checksums_key] = checksums_of(directory, files);
}

/// Copies the students, one in memory at a time, each checked against its assignment, and writes
/// the manifest, which extends `about`.
void write_students(const fs::path& directory, const std::vector<fs::path>& students,
                    const std::string& partition_hash, nlohmann::json about,
                    const std::string& teacher_hash, const nlohmann::json& metrics) {
    nlohmann::json paths = nlohmann::json::array();
    for (std::size_t k = 0; k < students.size(); ++k) {
        Model model = read_model(students[k], at::kCPU, Weights::shared);
        check_assignment(model, partition_hash, static_cast<std::int64_t>(k),
                         (students[k] / "config.json").string());
        paths.push_back(fmt::format("students/{}", k));
        if (model.low_rank() > 0) {
            copy_base(students[k] / model.lora->base, directory / base_folder);
            model.lora->base = fmt::format("../../{}", base_folder);
        }
        write_model(directory / "students" / std::to_string(k), model);
        about["data"] = data::to_json(model.spec);
    }
    about.update({{"version", version},
                  {"K", students.size()},
                  {"students", paths},
                  {"teacher_hash", teacher_hash},
                  {"licence", "as the training data's"},
                  {"metrics", metrics}});
    record_checksums(directory, about);
    core::write_json(directory / "ensemble.json", about);
}

void check_count(const fs::path& directory, std::int64_t expected, std::size_t given) {
    if (static_cast<std::int64_t>(given) != expected)
        core::fail("{}: the partition has {} students, {} are given", directory.string(), expected,
                   given);
}

}  // namespace

bool is_ensemble_directory(const fs::path& path) {
    return fs::is_regular_file(path / "ensemble.json");
}

Ensemble read_manifest(const fs::path& directory) {
    const fs::path path = directory / "ensemble.json";
    if (!fs::exists(path)) {
        const PathInfo found = identify_path(directory);
        if (found.kind != PathInfo::Kind::model && found.kind != PathInfo::Kind::diffusers)
            reject_as_model(directory);
        core::fail("{}: there is no ensemble here (no ensemble.json); it {}", directory.string(),
                   found.description);
    }
    Ensemble ensemble;
    ensemble.directory = directory;
    ensemble.manifest = core::read_json(path);
    const core::JsonObject json(ensemble.manifest, path.string());
    if (const auto found = json.integer("version", 1, 1'000'000); found > version) {
        core::fail("{}: format version {} is newer than this program's {}; use a newer atelier",
                   path.string(), found, version);
    }
    if (json.text_or("condition", "class") == "text") {
        read_prompt_partition(ensemble, json);
    } else {
        ensemble.partition =
            conditions::partition_from_json(json.object("partition").json(), path.string());
        ensemble.prior = {json.numbers("prior")};
        check_prior(ensemble.prior, ensemble.partition.classes(), path.string());
    }
    ensemble.spec = data::sample_spec_from_json(json.object("data"));
    const auto students = json.texts("students");
    if (json.integer("K", 1, max_students) != ensemble.partition.students ||
        static_cast<std::int64_t>(students.size()) != ensemble.partition.students) {
        core::fail(
            "{}: K, the partition and the list of students disagree on how many students there are",
            path.string());
    }
    for (const std::string& student : students)
        ensemble.students.push_back(inside(directory, student, path.string()));
    return ensemble;
}

Ensemble read_ensemble(const fs::path& directory) {
    Ensemble ensemble = read_manifest(directory);
    for (const fs::path& student : ensemble.students) {
        if (!fs::is_regular_file(student / "config.json"))
            core::fail("{}: student {} is missing", (directory / "ensemble.json").string(),
                       student.string());
    }
    return ensemble;
}

Assignment student_assignment(const conditions::Partition& partition, std::int64_t student) {
    return {student, partition.cell(student), partition.hash()};
}

Assignment student_assignment(const conditions::PromptPartition& partition, std::int64_t student) {
    return {student, std::nullopt, partition.hash()};
}

void check_assignment(const ModelCard& card, const std::string& partition_hash,
                      std::int64_t student, const std::string& where) {
    if (!card.assignment || card.assignment->partition != partition_hash) {
        core::fail(
            "{}: this student was trained for another partition; an ensemble's students and its "
            "partition belong together",
            where);
    }
    if (card.assignment->student != student) {
        core::fail("{}: this is student {} of the partition, not student {}", where,
                   card.assignment->student, student);
    }
}

Model open_student(const Ensemble& ensemble, std::int64_t student) {
    const fs::path& directory = ensemble.students.at(static_cast<std::size_t>(student));
    Model model = open_model(directory);
    if (model.low_rank() > 0) {
        const std::string config = (directory / "config.json").string();
        const fs::path base = (directory / model.lora->base).lexically_normal();
        inside(ensemble.directory,
               base.lexically_relative(ensemble.directory.lexically_normal()).string(), config);
    }
    check_assignment(model, ensemble.partition_hash(), student,
                     (directory / "config.json").string());
    if (ensemble.prompts) {
        const auto length = static_cast<std::int64_t>(ensemble.prompts->centroids.front().size());
        if (model.network.label_dim != length)
            core::fail("{}: the student reads embeddings of length {}, the partition's have {}",
                       (directory / "config.json").string(), model.network.label_dim, length);
    } else if (model.network.label_dim != 0 &&
               model.network.label_dim != ensemble.partition.classes()) {
        core::fail("{}: the student knows {} classes, the ensemble's partition has {}",
                   (directory / "config.json").string(), model.network.label_dim,
                   ensemble.partition.classes());
    }
    if (model.spec.shape != ensemble.spec.shape) {
        core::fail("{}: the student's samples are {}, the ensemble's {}",
                   (directory / "config.json").string(), core::to_string(model.spec.shape),
                   core::to_string(ensemble.spec.shape));
    }
    return model;
}

Model read_student(const Ensemble& ensemble, std::int64_t student, at::Device device,
                   Weights weights) {
    return read_weights(open_student(ensemble, student), device, weights);
}

void write_ensemble(const fs::path& directory, const conditions::Partition& partition,
                    const conditions::Prior& prior, const std::vector<fs::path>& students,
                    const std::string& teacher_hash, const nlohmann::json& metrics) {
    check_count(directory, partition.students, students.size());
    check_prior(prior, partition.classes(), directory.string());
    core::create_directory_atomically(directory, [&](const fs::path& temporary) {
        write_students(temporary, students, partition.hash(),
                       {{"condition", "class"},
                        {"partition", conditions::to_json(partition)},
                        {"prior", prior.weights}},
                       teacher_hash, metrics);
    });
}

void write_prompt_ensemble(const fs::path& directory, const conditions::PromptPartition& partition,
                           const fs::path& encoder_of, const std::vector<fs::path>& students,
                           const std::string& teacher_hash, const nlohmann::json& metrics) {
    check_count(directory, partition.students(), students.size());
    core::create_directory_atomically(directory, [&](const fs::path& temporary) {
        fs::create_directories(temporary / prompts_folder);
        conditions::write_prompt_partition(temporary / prompts_folder, partition);
        copy_parts(encoder_of, temporary);
        write_students(temporary, students, partition.hash(),
                       {{"condition", "text"}, {"partition", {{"hash", partition.hash()}}}},
                       teacher_hash, metrics);
    });
}

void write_changed_ensemble(const Ensemble& ensemble, const fs::path& directory,
                            const std::function<Model(std::int64_t, Model)>& change) {
    core::create_directory_atomically(directory, [&](const fs::path& temporary) {
        nlohmann::json manifest = ensemble.manifest;
        manifest["metrics"] = nlohmann::json::object();
        for (std::int64_t k = 0; k < ensemble.partition.students; ++k) {
            write_model(
                temporary / manifest["students"].at(static_cast<std::size_t>(k)).get<std::string>(),
                change(k, read_student(ensemble, k)));
        }
        if (ensemble.prompts) {
            fs::copy(ensemble.directory / prompts_folder, temporary / prompts_folder,
                     fs::copy_options::recursive);
            copy_parts(ensemble.directory, temporary);
        }
        record_checksums(temporary, manifest);
        core::write_json(temporary / "ensemble.json", manifest);
    });
}

}  // namespace atelier::models
