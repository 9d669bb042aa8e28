# Builds pg_portage with PGXS. `make help` lists what there is to do.
#
# PGXS does the work; this file says what is ours: C++20, the version, the install script, the tests.
# Objects go to build/, the module to ./pg_portage.so. Another place: make -f SRC/Makefile VPATH=SRC.

SRC := $(or $(VPATH),.)

# The plain pg_config where there is one, else the highest that Debian has installed.
PG_CONFIG ?= $(or $(shell command -v pg_config 2>/dev/null),$(lastword $(wildcard /usr/lib/postgresql/1[5678]/bin/pg_config)))
# Not an empty one: on a bare machine it is there only once its package is.
ifneq ($(PG_CONFIG),)
export PG_CONFIG
endif

# These need no pg_config (`make deps` is what brings it), or call make again once they do.
HOUSE := help deps check check-long check-matrix demo demo-psql bench format

ifneq ($(filter-out $(HOUSE),$(or $(MAKECMDGOALS),all)),)

ifeq ($(PG_CONFIG),)
$(error pg_config not found: run "make deps", or name it: make PG_CONFIG=/usr/lib/postgresql/15/bin/pg_config)
endif
PG_VERSION := $(shell $(PG_CONFIG) --version 2>/dev/null)
PG_MAJOR := $(shell echo '$(PG_VERSION)' | sed -n 's/^PostgreSQL \([0-9]*\).*/\1/p')
ifeq ($(filter $(PG_MAJOR),15 16 17 18),)
$(error pg_portage needs PostgreSQL 15, 16, 17 or 18, but $(PG_CONFIG) says "$(PG_VERSION)"; name another: make PG_CONFIG=/usr/lib/postgresql/15/bin/pg_config)
endif
PGXS := $(shell $(PG_CONFIG) --pgxs)
ifeq ($(wildcard $(PGXS)),)
$(error the server's development files for $(PG_VERSION) are not installed ($(PGXS) is missing): run "make deps")
endif

VERSION := $(shell sed -n "s/^default_version *= *'\(.*\)'.*/\1/p" $(SRC)/pg_portage.control)
# From sources only: a folder more in extension/ needs no line here.
SOURCES := $(sort $(wildcard $(SRC)/extension/*.cpp $(SRC)/extension/*/*.cpp))
INSTALL_SQL := build/pg_portage--$(VERSION).sql
# A change of server or of version makes every object stale.
BUILT_FOR := build/built-for-$(word 2,$(PG_VERSION))-$(VERSION)

EXTENSION := pg_portage
MODULE_big := pg_portage
OBJS := $(patsubst $(SRC)/extension/%.cpp,build/obj/%.o,$(SOURCES))
DATA := $(patsubst $(SRC)/%,%,$(wildcard $(SRC)/sql/pg_portage--*--*.sql))
DATA_built := $(INSTALL_SQL)
EXTRA_CLEAN := build

# pg_regress looks for expected/ in the top folder by itself, on every major.
REGRESS := $(sort $(patsubst $(SRC)/regress/sql/%.sql,%,$(wildcard $(SRC)/regress/sql/*.sql)))
REGRESS_OPTS := --inputdir=$(SRC)/regress --encoding=UTF8

# -isystem: the server's own headers are not ours to warn about.
PG_CPPFLAGS := -I$(SRC)/extension -isystem $(shell $(PG_CONFIG) --includedir-server) \
	-DPORTAGE_VERSION='"$(VERSION)"' -DSIMDJSON_EXCEPTIONS=0
# -Wno-clobbered: what is read after a jump (bridge/guard.hpp) is never changed before it.
# -Wno-array-bounds and the three after it: GCC 12 finds fault with std::string itself once that is precompiled.
# -fno-semantic-interposition: nobody replaces our functions, so calls among them may be inlined in spite of -fPIC.
PG_CXXFLAGS := -std=c++20 -O2 -g -fPIC -fno-semantic-interposition -fvisibility-inlines-hidden \
	-Wall -Wextra -Wno-register -Wno-clobbered -Wno-array-bounds -Wno-restrict -Wno-stringop-overflow \
	-Wno-stringop-overread
# Warnings are errors in CI only: a newer compiler must not keep a user from building.
ifneq ($(filter true 1,$(CI) $(WERROR)),)
PG_CXXFLAGS += -Werror
endif
SHLIB_LINK := -Wl,--version-script=$(SRC)/extension/exports.map -lsimdjson -lcrypto -lstdc++

# No bitcode: there is nothing in import functions that the JIT could inline.
override with_llvm := no

include $(PGXS)

pg_portage.so: $(SRC)/extension/exports.map

# Half of the time of a build would go into reading the headers of Postgres and of the standard library: they are
# precompiled. Not for files that must see another library before Postgres, or no Postgres at all.
PRECOMPILED := build/precompiled.hpp.gch
WITHOUT := $(patsubst $(SRC)/extension/%.cpp,%,$(shell grep -lE 'nlohmann/|formats/no_postgres' $(SOURCES)))

$(PRECOMPILED): $(SRC)/extension/bridge/pg.hpp $(BUILT_FOR)
	@mkdir -p $(@D)
	@echo '#include "bridge/pg.hpp"' > $(@:.gch=)
	$(CXX) $(CXXFLAGS) $(CPPFLAGS) -MMD -MP -x c++-header -c -o $@ $(@:.gch=)

build/obj/%.o: $(SRC)/extension/%.cpp $(PRECOMPILED)
	@mkdir -p $(@D)
	$(CXX) $(if $(filter $*,$(WITHOUT)),,-include $(PRECOMPILED:.gch=)) $(CXXFLAGS) $(CPPFLAGS) -MMD -MP -c -o $@ $<

$(BUILT_FOR):
	@mkdir -p build
	@rm -f build/built-for-*
	@touch $@

# The numbered parts in their order. The echo keeps people from feeding the file to psql.
$(INSTALL_SQL): $(sort $(wildcard $(SRC)/sql/[0-9][0-9]-*.sql)) $(SRC)/pg_portage.control
	@mkdir -p $(@D)
	{ printf '%s\n' '\echo Use "CREATE EXTENSION pg_portage" to load this file. \quit'; \
	  cat $(filter %.sql,$^) /dev/null; } > $@.tmp
	mv $@.tmp $@

lint: ## clang-tidy over the extension, and whether make format would change anything
	clang-format --dry-run --Werror $(CXX_FILES)
	printf '%s\n' $(SOURCES) | xargs -P $$(nproc) -n 4 sh -c 'clang-tidy --quiet --warnings-as-errors="*" "$$@" -- \
		$(filter-out -Werror,$(PG_CPPFLAGS)) -std=c++20 -Wno-register' lint

-include $(OBJS:.o=.d) $(PRECOMPILED:.gch=.d)

endif # goals that need PGXS

CXX_FILES = $(sort $(shell find $(wildcard extension sidecar tests bench fuzz) -name '*.[ch]pp' -o -name '*.[ch]pp.in'))

deps: ## install the system packages of docker/packages.txt (as root, or by sudo)
	make/deps.sh

# What is to be had of docker/packages.txt first; NO_DEPS=1 if you know better.
BRING = @$(if $(NO_DEPS),:,make/deps.sh)

# The scripts below build and stage by themselves, with this same Makefile.
# PGXS has a check of its own, which only says that it cannot; ours is told only when asked for, to spare a warning.
ifneq ($(filter check,$(MAKECMDGOALS)),)
check: ## build, run every suite on private servers, end with "N passed, N failed"
	$(BRING) build test
	@tests/run-check.sh $(or $(SUITES),$(if $(QUICK),regress docs unit,unit regress e2e docs))
endif

check-long: ## what takes longer than make check may: tests/long/
	$(BRING) build test
	@tests/run-check.sh long

check-matrix: ## make check in a bare chroot for each Debian and PostgreSQL that is named in README (as root)
	$(BRING) matrix
	@tests/run-matrix.sh

demo: ## a migration from its files to its rollback, on a private throwaway server
	$(BRING) build test
	@$(MAKE) --no-print-directory -q all || echo 'building pg_portage first: some minutes ...'
	@$(MAKE) --no-print-directory -s -j $$(nproc) all
	@demo/demo.sh

demo-psql: ## the same up to the imported table, then psql on it; the server goes with psql
	$(BRING) build test
	@$(MAKE) --no-print-directory -q all || echo 'building pg_portage first: some minutes ...'
	@$(MAKE) --no-print-directory -s -j $$(nproc) all
	@demo/demo.sh psql

bench: ## pg_portage against COPY, hand-written SQL and others, in one run
	$(BRING) build test bench
	@$(MAKE) --no-print-directory -s all
	bench/run.sh

format: ## clang-format all C++ in place
	clang-format -i $(CXX_FILES)

help: ## this list
	@printf '%s\n' \
	  'all           build the module and the install script (the default)' \
	  'install       install both into the server of PG_CONFIG (DESTDIR as usual)' \
	  'installcheck  run the regression tests against a running server with pg_portage installed'
	@sed -n 's/^\([a-z-]*\):.* ## \(.*\)/\1 \2/p' $(firstword $(MAKEFILE_LIST)) | \
	  while read -r target text; do printf '%-13s %s\n' "$$target" "$$text"; done
	@printf '%s\n' 'clean         remove what was built' '' \
	  'Variables: PG_CONFIG=path  WERROR=1  NO_DEPS=1 (demo, check and bench install no packages)' \
	  'make check: QUICK=1  SUITES="unit regress e2e docs"  TESTS="names of tests"  V=1 (show all output)' \
	  'make check-matrix: MATRIX="trixie:17"  QUICK=1  FRESH=1 (chroots anew)' \
	  'make bench: QUICK=1 (under two minutes)  WORKLOADS="W1-sorted W3"  ROUNDS=3  FULL=1'

.PHONY: $(HOUSE) lint
