// A run in this session's hands: its options, role and compiled pipeline, and its ownership. What works on a
// run (worker.cpp, importer.cpp) shares one.
#pragma once

#include "load/loader.hpp"
#include "run/batch_reader.hpp"
#include "run/options.hpp"
#include "run/ownership.hpp"
#include "run/target_lock.hpp"

namespace portage::run {

struct Job {
  /// `run` has been checked (access.hpp). Compiles the pipeline as the run's role.
  Job(const ledger::Run& run, Commits commits, bool helps = false);
  /// The same of a version that is known.
  Job(const ledger::Run& run, const StoredPipeline&, Commits commits, bool helps = false);
  Job(const Job&) = delete;
  Job& operator=(const Job&) = delete;

  /// Compiles the pipeline again: the target is another one on purpose.
  void compile();

  ledger::Run run;
  const Commits commits;
  const Options options;
  const Oid role;
  std::unique_ptr<Plan> plan;
  load::Policy policy;
  Ownership ownership;
  int workers = 1;                        ///< how many may import side by side
  std::optional<TargetLock> target_lock;  ///< while indexes of the target are away
};

}  // namespace portage::run
