#pragma once

#include <string>

#include "atelier/networks/network.h"

namespace atelier::cli {

/// Where and how a stage computes, as far as its memory is concerned.
struct Conditions {
    bool cuda = false;
    bool low_precision = false;  // bfloat16 or half: values take two bytes a number, and weights are copied so while a pass lasts
    bool recompute = false;      // activation checkpointing
};

/// One network as a burden: its parameters, and the work and memory of a sample's passes through it.
struct Burden {
    double parameters = 0;  // numbers
    double flops = 0;       // forward, a sample; a backward pass is about two of it
    ops::Memory alone, kept;  // of a pass without and with a backward one
};

Burden burden_of(const networks::Network& network, const Conditions& conditions, networks::Extent extent = networks::Extent::whole);
/// The GAN head on the bottleneck of `network`.
Burden burden_of_head(const networks::Network& network, const Conditions& conditions);

/// As a teacher that is guided: each sample is evaluated with its condition and without.
Burden guided(Burden burden);

/// As a learner of low-rank deltas of so many numbers: the weights under them are the teacher's own.
Burden low_rank(Burden burden, double deltas);

/// What a learner holds beside its weights: two moments, and `averages` of its weights.
struct Standing {
    double averages = 0;
    bool keeps_best = false;
};

struct Batch {
    double samples = 0;   // computed at once
    bool parts = false;   // an update has several such parts
    double probe = 0;     // samples that a probe draws at once
};

/// Bytes that a stage needs on its device, from what its tensors are and for how long LibTorch's autograd holds them.
double score_matching_bytes(const Burden& model, const Burden* teacher, const Standing& standing, const Batch& batch, const Conditions& conditions);

struct Matching {
    Burden student, teacher, fake, encoder, head;  // encoder and head are of the fake score, with a GAN only
    bool gan = false, score_identity = false, regression = false;
    Standing standing;
};
double matching_bytes(const Matching& matching, const Batch& batch, const Conditions& conditions);

/// What LibTorch itself takes before any tensor: on CPUs what this process holds now and the libraries' scratch, on CUDA its context.
double own_bytes(const Conditions& conditions);

/// Work of one step in floating-point operations.
double score_matching_flops(const Burden& model, const Burden* teacher, double batch, const Conditions& conditions);
double matching_flops(const Matching& matching, double batch, double fake_updates, const Conditions& conditions);

}  // namespace atelier::cli
