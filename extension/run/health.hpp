// How the server bears what runs do to it: a few numbers, each with a threshold, read from the database
// alone. Knows nothing of a run's life; what a strained server means for a batch is decided by the worker.
#pragma once

#include "bridge/spi.hpp"

namespace portage::run {

struct Signal {
  std::string name;
  std::optional<double> value;  ///< none: there is nothing to measure, or it cannot be read
  double threshold = -1;        ///< exceeded above it; below 0: the signal is switched off
  std::string unit;
  bool exceeded = false;
  bool holds = false;         ///< when exceeded: hold the run (true), or halve its batches
  std::string text;           ///< in words: what was found, or why it cannot be read
  bool known = true;          ///< false: it cannot be read
  bool to_be_mended = false;  ///< when exceeded: no run can do anything about it

  const char* state() const;  ///< ok, halve, hold, mend, off or unknown
};

/// What all exceeded signals together ask for, and why ("310 WAL files wait for the archiver (limit 100)").
struct Strain {
  bool hold = false, halve = false;
  std::string reason;
};

/// All signals at this moment, for runs that write `targets` (with all their partitions) by the processes
/// `our_pids`. Takes a millisecond or two, writes nothing, waits for nobody's lock, and raises nothing but
/// interrupts: what cannot be read is unknown. Blocked sessions are seen only while the locks are held: ask
/// at the end of a batch, before its commit.
std::vector<Signal> read_signals(const std::vector<Oid>& targets, const std::vector<int32_t>& our_pids);
inline std::vector<Signal> read_signals(Oid target, const std::vector<int32_t>& our_pids) {
  return read_signals(std::vector<Oid>{target}, our_pids);
}

/// Indexes that initial loads have taken away and nobody puts back at this moment.
Signal missing_indexes();

/// What belongs to roles that are gone, or to those of another cluster.
Signal gone_roles();

Strain strain_of(const std::vector<Signal>&);

}  // namespace portage::run
