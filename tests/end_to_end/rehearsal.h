#pragma once

#include <nlohmann/json.hpp>

#include "end_to_end/images.h"

/// The ImageNet recipe for small students with small networks and data of our own.
namespace atelier::end_to_end {

struct RehearsalLengths {
    int images, classifier, teacher, tsm, dm, adm;  // updates, but for the images
    int probes, evaluated;                          // samples
};

/// Imports images, trains a classifier, and makes the run in `folder`/run.
inline void rehearse(const Folder& folder, const RehearsalLengths& lengths) {
    const auto set = [](const std::string& key, int value) {
        return key + "=" + std::to_string(value);
    };
    write_images(folder / "pictures", lengths.images, 32, 1);
    succeed({"import", folder / "pictures", folder / "data.zip", "--size", "32"});
    succeed({"classifier", "configs/classifier.toml", "data.path=" + (folder / "data.zip"),
             "output=" + (folder / "classifier"), "threads=1", "width=8", "features=32", "batch=64",
             set("steps", lengths.classifier)});
    succeed(
        {"run", "configs/imagenet64-msd4-small.toml", "device=cpu", "output=" + (folder / "run"),
         "data.path=" + (folder / "data.zip"), "data.shape=[3,32,32]", "data.classes=8",
         "data.flips=false", "teacher.path=", "evaluate.classifier=" + (folder / "classifier"),
         // sizes
         "network.model_channels=32", "network.channel_mult=[1,2]", "network.num_blocks=1",
         "network.attention_resolutions=[4]", "network.patch_size=4", "students.widths=[16]",
         "students.channel_mult=[1,2]", "students.depths=[1]", "teacher.batch=32", "tsm.batch=32",
         "tsm.micro_batch=0", "dm.batch=32", "dm.micro_batch=16", "adm.batch=32",
         "adm.micro_batch=0", set("probe.count", lengths.probes),
         set("evaluate.count", lengths.evaluated), "evaluate.steps=8", "threads=1",
         "students.threads=1", "precision=fp32", "students.parallel=2",
         // lengths and rates
         set("teacher.steps", lengths.teacher), "teacher.lr=4e-3", "teacher.warmup=50",
         "teacher.decay_from=0.4", "teacher.ema_decay=0.99", set("tsm.steps", lengths.tsm),
         "tsm.lr=4e-3", "tsm.warmup=20", "tsm.decay_from=0.4", "tsm.ema_decay=0.98",
         "tsm.beta2=0.99", "tsm.clip=1.0", set("dm.steps", lengths.dm), "dm.fake_updates=2",
         "dm.lr=5e-4", "dm.fake_lr=1e-3", "dm.warmup=10", "dm.fake_warmup=10", "dm.ema_decay=0.95",
         set("adm.steps", lengths.adm), "adm.fake_updates=2", "adm.lr=5e-4", "adm.fake_lr=1e-3",
         "adm.warmup=10", "adm.fake_warmup=10", "adm.decay_from=0.3", "adm.fake_decay_from=0.3",
         "adm.ema_decay=0.95", "adm.gan_weight=0.001", "probe.every=5", "probe.sampler_every=0"});
}

}  // namespace atelier::end_to_end
