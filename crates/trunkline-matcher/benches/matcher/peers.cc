// The matchers in C++, measured as cell.rs measures those in Rust.
//
// peers ENGINE SECONDS WORKLOAD ANSWERS

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <functional>
#include <iostream>
#include <memory>
#include <string>
#include <vector>

#ifdef HAVE_RE2
#include <re2/filtered_re2.h>
#include <re2/re2.h>
#include <re2/set.h>
#endif
#ifdef HAVE_VECTORSCAN
#include <hs/hs.h>
#endif

namespace {

using Clock = std::chrono::steady_clock;
// Fills in the places of the patterns that match, in any order.
using Ask = std::function<void(const std::string&, std::vector<int>&)>;

constexpr int kPasses = 6;

struct Workload {
  // By descending weight, and equal weights by insertion: answers are in the order of places.
  std::vector<uint32_t> values;
  std::vector<std::string> patterns, cold, hot;
  std::vector<uint32_t> order;
};

[[noreturn]] void fail(const std::string& why) {
  std::cerr << "peers: " << why << std::endl;
  std::exit(1);
}

Workload read(const char* path) {
  std::ifstream in(path);
  size_t patterns, cold, hot, order;
  if (!(in >> patterns >> cold >> hot >> order)) fail("no workload");
  Workload work;
  work.values.resize(patterns);
  work.patterns.resize(patterns);
  for (size_t i = 0; i < patterns; i++) {
    in >> work.values[i];
    in.ignore(1);
    std::getline(in, work.patterns[i]);
  }
  work.cold.resize(cold);
  for (auto& name : work.cold) std::getline(in, name);
  work.hot.resize(hot);
  for (auto& name : work.hot) std::getline(in, name);
  work.order.resize(order);
  for (auto& place : work.order) in >> place;
  if (!in) fail("half a workload");
  return work;
}

double resident_mb() {
  std::ifstream in("/proc/self/status");
  for (std::string line; std::getline(in, line);)
    if (line.rfind("VmRSS:", 0) == 0) return std::atof(line.c_str() + 6) / 1024;
  fail("no line for resident memory");
}

double seconds(Clock::time_point from) { return std::chrono::duration<double>(Clock::now() - from).count(); }

void report(const char* name, double value) { std::printf("%s %.9g\n", name, value); }

double clock_nanos() {
  double best = 1e9;
  for (int round = 0; round < 20; round++) {
    auto start = Clock::now();
    for (int i = 0; i < 1000; i++) {
      auto now = Clock::now();
      asm volatile("" : : "r"(&now) : "memory");
    }
    best = std::min(best, seconds(start) * 1e6);
  }
  return best;
}

uint64_t checksum(const Workload& work, const std::vector<int>& places) {
  uint64_t sum = 0xcbf29ce484222325;
  for (int place : places) {
    sum = (sum ^ (uint64_t{work.values[place]} + 1)) * 0x00000100000001b3;
    sum ^= sum >> 29;
  }
  return sum;
}

double quantile(std::vector<double>& values, double part) {
  auto place = values.begin() + static_cast<size_t>((values.size() - 1) * part);
  std::nth_element(values.begin(), place, values.end());
  return *place;
}

void look_ups(const Workload& work, double before, double budget, const char* answers, const Ask& ask) {
  std::vector<int> found;
  std::vector<uint64_t> sums;
  std::vector<double> nanos;
  size_t matches = 0;
  sums.reserve(work.cold.size());
  nanos.reserve(work.cold.size());
  double clock = clock_nanos();
  auto start = Clock::now(), last = start;
  for (auto& name : work.cold) {
    found.clear();
    ask(name, found);
    std::sort(found.begin(), found.end());
    sums.push_back(checksum(work, found));
    matches += found.size();
    auto now = Clock::now();
    nanos.push_back(std::max(0.0, std::chrono::duration<double, std::nano>(now - last).count() - clock));
    last = now;
    if (std::chrono::duration<double>(now - start).count() > budget) break;
  }
  double total = 0;
  for (double value : nanos) total += value;
  report("cold_names", nanos.size());
  report("matches_mean", static_cast<double>(matches) / nanos.size());
  report("cold_mean", total / nanos.size());
  report("cold_p50", quantile(nanos, 0.5));
  report("cold_p99", quantile(nanos, 0.99));

  double best = 1e18;
  size_t chunk = 1;
  start = Clock::now();
  for (int pass = 0; pass < kPasses; pass++) {
    size_t asked = 0;
    auto began = Clock::now();
    while (asked < work.order.size() && seconds(start) < budget) {
      size_t end = std::min(asked + chunk, work.order.size());
      for (size_t i = asked; i < end; i++) {
        found.clear();
        ask(work.hot[work.order[i]], found);
        std::sort(found.begin(), found.end());
        asm volatile("" : : "r"(found.data()) : "memory");
      }
      asked = end;
      if (seconds(began) / asked * chunk < 0.0005) chunk *= 2;
    }
    bool complete = asked == work.order.size();
    if (asked > 0 && (pass > 0 || !complete) && (complete || best == 1e18))
      best = std::min(best, seconds(began) * 1e9 / asked);
  }
  report("hot_mean", best);
  report("asked_mb", resident_mb() - before);
  std::ofstream out(answers, std::ios::binary);
  out.write(reinterpret_cast<const char*>(sums.data()), sums.size() * sizeof(uint64_t));
}

#ifdef HAVE_VECTORSCAN
int collect(unsigned id, unsigned long long, unsigned long long, unsigned, void* found) {
  static_cast<std::vector<int>*>(found)->push_back(static_cast<int>(id));
  return 0;
}

// A database and its scratch, which live as long as the process.
struct Scanner {
  hs_database_t* database = nullptr;
  hs_scratch_t* scratch = nullptr;

  // A dot stands for any character but a line feed, as in Go; which pattern matches is all that is asked.
  Scanner(const std::vector<std::string>& texts, bool literals) {
    std::vector<const char*> pointers;
    std::vector<size_t> lengths;
    std::vector<unsigned> flags(texts.size(), HS_FLAG_SINGLEMATCH | (literals ? HS_FLAG_CASELESS : 0)), ids;
    for (auto& text : texts) {
      ids.push_back(pointers.size());
      pointers.push_back(text.c_str());
      lengths.push_back(text.size());
    }
    hs_compile_error_t* error = nullptr;
    unsigned count = texts.size();
    auto status = literals ? hs_compile_lit_multi(pointers.data(), flags.data(), ids.data(), lengths.data(), count,
                                                  HS_MODE_BLOCK, nullptr, &database, &error)
                           : hs_compile_multi(pointers.data(), flags.data(), ids.data(), count, HS_MODE_BLOCK, nullptr,
                                              &database, &error);
    if (status != HS_SUCCESS) fail(error->message);
    if (hs_alloc_scratch(database, &scratch) != HS_SUCCESS) fail("no scratch");
  }

  void ask(const std::string& name, std::vector<int>& found) const {
    hs_scan(database, name.data(), name.size(), 0, scratch, collect, &found);
  }
};
#endif

}  // namespace

int main(int count, char** arguments) {
  if (count != 5) fail("ENGINE SECONDS WORKLOAD ANSWERS");
  const std::string engine = arguments[1];
  const double budget = std::atof(arguments[2]);
  const Workload work = read(arguments[3]);
  const double before = resident_mb();
  const auto start = Clock::now();
  auto measure = [&](const Ask& ask) {
    report("build_s", seconds(start));
    report("built_mb", resident_mb() - before);
    look_ups(work, before, budget, arguments[4], ask);
  };
#ifdef HAVE_VECTORSCAN
  if (engine == "vectorscan") {
    Scanner scanner(work.patterns, false);
    measure([&](const std::string& name, std::vector<int>& found) { scanner.ask(name, found); });
    return 0;
  }
#endif
#ifdef HAVE_RE2
  re2::RE2::Options options;
  options.set_log_errors(false);
  if (engine == "re2set") {
    // Enough for the states of its automaton, which it builds as it is asked.
    options.set_max_mem(int64_t{1} << 30);
    re2::RE2::Set set(options, re2::RE2::UNANCHORED);
    for (auto& text : work.patterns)
      if (set.Add(text, nullptr) < 0) fail("RE2 refuses " + text);
    if (!set.Compile()) fail("RE2::Set is out of memory");
    measure([&](const std::string& name, std::vector<int>& found) { set.Match(name, &found); });
    return 0;
  }
#endif
#if defined(HAVE_RE2) && defined(HAVE_VECTORSCAN)
  if (engine == "re2filtered") {
    re2::FilteredRE2 set;
    for (auto& text : work.patterns) {
      int id;
      if (set.Add(text, options, &id) != re2::RE2::NoError) fail("RE2 refuses " + text);
    }
    std::vector<std::string> texts;
    set.Compile(&texts);
    Scanner scanner(texts, true);
    std::vector<int> atoms;
    measure([&](const std::string& name, std::vector<int>& found) {
      atoms.clear();
      scanner.ask(name, atoms);
      set.AllMatches(name, atoms, &found);
    });
    return 0;
  }
#endif
  fail("no engine " + engine);
}
