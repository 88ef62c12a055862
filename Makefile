# feedmill: one Makefile, not recursive into folders; one build directory a variant. `make help` lists the targets.
#   make V=asan ...   builds with AddressSanitizer and UBSan;  V=tsan with ThreadSanitizer;  V=clang with clang.

V     ?= release
BUILD := build/$(V)

PORT ?= 8080
REDIS_MAXMEMORY ?= 0
DATA ?= ./run
DEMO ?= 1

CC_release := gcc
CC_asan    := gcc
CC_tsan    := gcc
CC_clang   := clang
CC_fuzz    := clang
CC_cov     := clang
CC         := $(CC_$(V))
ifeq ($(CC),)
$(error unknown variant V=$(V): use release, asan, tsan, clang, fuzz or cov)
endif

OPT_release := -O2
OPT_clang   := -O2
OPT_asan    := -O1 -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer
OPT_fuzz    := -O1 -fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer
OPT_cov     := -O1 -fsanitize=fuzzer-no-link -fprofile-instr-generate -fcoverage-mapping
OPT_tsan    := -O1 -fsanitize=thread -fno-omit-frame-pointer

WARN     := -Wall -Wextra -Werror -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wno-format-truncation
ifeq ($(CC),clang)
WARN     := $(filter-out -Wno-format-truncation,$(WARN)) -Wno-gnu-zero-variadic-macro-arguments
endif
# Third-party headers come in as system headers. pkg-config is asked once, and only when something is compiled:
# before `make setup` it may not be there.
PKGS     := libmongoc-1.0 hiredis libevent libevent_pthreads jansson libcrypto libjwt libutf8proc zlib
pkg_ask   = $(or $(shell pkg-config $(1) $(PKGS) 2>/dev/null),$(error libraries are missing: run `make setup`))
PKG_CFLAGS = $(eval PKG_CFLAGS := $$(subst -I,-isystem ,$$(call pkg_ask,--cflags)))$(PKG_CFLAGS)
PKG_LIBS   = $(eval PKG_LIBS := $$(call pkg_ask,--libs) -lhttp_parser -lpthread -lm)$(PKG_LIBS)
CFLAGS   = -std=c11 -D_GNU_SOURCE -g $(OPT_$(V)) $(WARN) -MMD -MP -I. $(PKG_CFLAGS)
LDFLAGS  = $(OPT_$(V))

PROCESSES := feed-api fanout ranker
TOOLS     := $(patsubst tools/main_%.c,%,$(wildcard tools/main_*.c))
comma     := ,
obj        = $(patsubst %.c,$(BUILD)/obj/%.o,$(1))

COMMON_OBJ  := $(call obj,$(wildcard common/*.c))
SUPPORT_OBJ := $(call obj,$(wildcard tests/support/*.c))
TOOLS_OBJ   := $(call obj,$(filter-out tools/main_%,$(wildcard tools/*.c)))
proc_obj     = $(call obj,$(filter-out $(1)/main.c,$(wildcard $(1)/*.c)))

# tests/fuzz: libFuzzer brings the main(); feed-api's modules are what takes most from outside.
$(BUILD)/tests/fuzz/%: $(BUILD)/obj/tests/fuzz/%.o $(call proc_obj,feed-api) $(BUILD)/libcommon.a
	@mkdir -p $(@D)
	@echo "  LINK $@"
	@$(CC) $(LDFLAGS) -fsanitize=fuzzer -o $@ $^ $(PKG_LIBS)

TESTS := $(patsubst tests/%.c,%,$(wildcard tests/*/test_*.c))
BINS  := $(addprefix $(BUILD)/bin/,$(foreach p,$(PROCESSES),$(if $(wildcard $(p)/main.c),$(p))) $(TOOLS))
ONLY  ?=
POINTS ?= 100
SEED  ?= 1
CHAOS_SECONDS ?= 5400
TEST_BINS := $(addprefix $(BUILD)/tests/,$(TESTS))
# ThreadSanitizer runs where threads share: not on the tools, and of the tests with whole processes on these.
TSAN_E2E  ?= e2e/test_paging e2e/test_items
TSAN_SKIP := $(filter-out $(TSAN_E2E),$(filter tools/% e2e/%,$(TESTS)))
TEST_SELECTED := $(if $(ONLY),$(foreach t,$(TEST_BINS),$(if $(findstring $(ONLY),$(t)),$(t))),$(TEST_BINS))
ifeq ($(V),tsan)
TEST_SELECTED := $(filter-out $(addprefix %/,$(TSAN_SKIP)),$(TEST_SELECTED))
endif

.DEFAULT_GOAL := build

build: $(BINS) ## build the three processes and the tools (V=asan, tsan or clang for another variant)
tests: $(TEST_SELECTED) $(if $(filter %e2e %stack %move_in,$(subst /test_, ,$(TEST_SELECTED))),$(BINS)) ## build the tests without running them

$(BUILD)/libcommon.a: $(COMMON_OBJ)
	@rm -f $@ && ar rcs $@ $^

# The fixtures and the tools' modules; as an archive, so that a test takes in only what it uses.
$(BUILD)/libsupport.a: $(SUPPORT_OBJ) $(TOOLS_OBJ)
	@rm -f $@ && ar rcs $@ $^

define PROC_RULE
$$(BUILD)/bin/$(1): $$(call obj,$(1)/main.c) $$(call proc_obj,$(1)) $$(BUILD)/libcommon.a
	@mkdir -p $$(@D)
	@echo "  LINK $$@"
	@$$(CC) $$(LDFLAGS) -o $$@ $$^ $$(PKG_LIBS)
$$(BUILD)/tests/$(1)/test_%: $$(BUILD)/obj/tests/$(1)/test_%.o $$(call proc_obj,$(1)) $$(BUILD)/libsupport.a $$(BUILD)/libcommon.a
	@mkdir -p $$(@D)
	@echo "  LINK $$@"
	@$$(CC) $$(LDFLAGS) -o $$@ $$^ $$(PKG_LIBS) -lcmocka -lyaml
endef
$(foreach p,$(PROCESSES),$(eval $(call PROC_RULE,$(p))))

$(addprefix $(BUILD)/bin/,$(TOOLS)): $(BUILD)/bin/%: $(BUILD)/obj/tools/main_%.o $(TOOLS_OBJ) $(BUILD)/libcommon.a
	@mkdir -p $(@D)
	@echo "  LINK $@"
	@$(CC) $(LDFLAGS) -o $@ $^ $(PKG_LIBS)

# The engines of fanout and parts of feed-api on one thread, in an order that a seed decides: MongoDB, its log, the leases, the
# clocks and the trips to Redis are tests/support/interleave*.c's.
INTERLEAVE_FEED := $(call obj,$(addprefix feed-api/,follow_set.c pulled.c rebuild.c timeline.c))
INTERLEAVE_WRAP := $(addprefix mongo_conn_,after deadline left_ms time fresh put) $(addprefix clock_,mono_ms mono_us wall_ms) \
	$(addprefix audience_,item next few keep_unmatched follows) target_ids_newest target_modes_pulled store_ids \
	follow_set_load follow_set_mutes engine_prepare dead_letters_write $(addprefix shares_,alive look wait retake release leave) \
	$(addprefix log_reader_,open close next complete queued down) log_fields pthread_create pthread_join nanosleep \
	$(addprefix redis_,new free read commandf script script_append) script_source
$(BUILD)/tests/fanout/test_interleave: LDFLAGS += $(addprefix -Wl$(comma)--wrap=,$(INTERLEAVE_WRAP))
$(BUILD)/tests/fanout/test_interleave: $(BUILD)/obj/tests/fanout/test_interleave.o $(INTERLEAVE_FEED) $(call proc_obj,fanout) \
		$(BUILD)/libsupport.a $(BUILD)/libcommon.a
	@mkdir -p $(@D)
	@echo "  LINK $@"
	@$(CC) $(LDFLAGS) -o $@ $^ $(PKG_LIBS) -lcmocka -lyaml

# common, tools, e2e: the shared library, the fixtures, the tools' modules, no process
$(BUILD)/tests/%: $(BUILD)/obj/tests/%.o $(BUILD)/libsupport.a $(BUILD)/libcommon.a
	@mkdir -p $(@D)
	@echo "  LINK $@"
	@$(CC) $(LDFLAGS) -o $@ $^ $(PKG_LIBS) -lcmocka -lyaml

$(BUILD)/obj/%.o: %.c
	@mkdir -p $(@D)
	@echo "  CC   $<"
	@$(CC) $(CFLAGS) -c -o $@ $<

# the assembler's .incbin is not seen by -MMD
$(BUILD)/obj/feed-api/openapi.o: openapi.yaml

-include $(shell find $(BUILD)/obj -name '*.d' 2>/dev/null)

# ---- what people type ----

JOBS     ?= $(shell nproc)
VARIANTS ?= release asan tsan
SUBMAKE   = $(MAKE) --no-print-directory -j$(JOBS)

setup: ## get the missing Debian packages and a mongod, and nothing else
	@tools/setup.sh run

run: setup ## run it all in the foreground: PORT=8080 DATA=./run DEMO=1 REDIS_MAXMEMORY=0
	@$(SUBMAKE) -s V=release $(addprefix build/release/bin/,$(PROCESSES) stack)
	@exec build/release/bin/stack --port $(PORT) --data $(DATA) --demo=$(DEMO) --redis-maxmemory $(REDIS_MAXMEMORY)

test: ## set up, build and run every test in its variants: VARIANTS="release asan tsan" ONLY=common/
	@tools/setup.sh run test
	@for v in $(VARIANTS); do $(SUBMAKE) V=$$v ONLY="$(ONLY)" tests || exit 1; done
	@TSAN_SKIP="$(TSAN_SKIP)" tools/run-tests.sh -j $(JOBS) -o "$(ONLY)" $(VARIANTS)

san: ## the tests with AddressSanitizer and UBSan, and those where threads share with ThreadSanitizer
	@$(MAKE) --no-print-directory test VARIANTS="asan tsan"

chaos-fanout: ## kill -9 and SIGSTOP each process and server at random points, compare with a ledger: POINTS=100 SEED=1
	@tools/setup.sh run test
	@$(SUBMAKE) V=release ONLY=e2e/test_kill tests
	@FEEDMILL_KILLS=$(POINTS) FEEDMILL_PAUSES=$(POINTS) FEEDMILL_SEED=$(SEED) FEEDMILL_TEST_TIMEOUT=$(CHAOS_SECONDS) \
	    tools/run-tests.sh -o e2e/test_kill release; rc=$$?; \
	    grep -h "acknowledged," build/test-results/release/e2e.test_kill.log; exit $$rc

bench: ## measure on a stack of its own: pages, publishes, demo load, bytes an entry
	@tools/setup.sh run bench
	@$(SUBMAKE) V=release build
	@tools/bench/run.sh

bench-fanout: ## measure deliveries against plain Redis, audiences, fairness: ROUNDS=5 QUICK=1 ONLY=A,B
	@tools/setup.sh run bench
	@$(SUBMAKE) V=release build
	@python3 tools/bench/fanout.py

bench-pages: ## measure feed pages against nginx with the same bytes and Redis' ZRANGE: ROUNDS=5 QUICK=1 ONLY=A,B
	@tools/setup.sh run bench
	@$(SUBMAKE) V=release build
	@python3 tools/bench/pages.py

bench-move-in: ## move millions in, interrupted and resumed, count and compare: ITEMS=200000 EDGES=800000 SEED=1 CACHE_GB=1
	@tools/setup.sh run
	@$(SUBMAKE) V=release build
	@ITEMS=$(ITEMS) EDGES=$(EDGES) SEED=$(SEED) CACHE_GB=$(CACHE_GB) python3 tools/bench/move_in.py

bench-streams: ## measure live streams: memory and CPU of idle ones, time to all who listen: STREAMS=20000 FOLLOWS=50
	@tools/setup.sh run
	@$(SUBMAKE) V=release build
	@python3 tools/bench/streams.py

fuzz: ## run each fuzz target of tests/fuzz for FUZZ_SECONDS=60, two at a time: ONLY=http
	@tools/setup.sh run fuzz
	@ONLY="$(ONLY)" JOBS=$(JOBS) tools/fuzz.sh $(or $(FUZZ_SECONDS),60)

fuzz-coverage: ## which lines of the parsers the kept inputs of tests/fuzz/corpus reach
	@tools/setup.sh run fuzz
	@JOBS=$(JOBS) tools/fuzz.sh coverage

api-check: ## ask a stack of its own what openapi.yaml says, and compare the answers: SEED=1 EXAMPLES=5 SECONDS_MAX=90 ONLY=getFeed
	@tools/setup.sh run api-check
	@$(SUBMAKE) -s V=release $(addprefix build/release/bin/,$(PROCESSES) stack)
	@SEED=$(SEED) EXAMPLES=$(EXAMPLES) SECONDS_MAX=$(SECONDS_MAX) ONLY="$(ONLY)" tools/api-check.sh

lint: ## format, clang's warnings, static analysis, scripts; changes nothing
	@tools/setup.sh run test lint
	@JOBS=$(JOBS) tools/lint.sh

fmt: ## format all C sources in place
	@tools/setup.sh lint
	clang-format -i $(shell find common fanout feed-api ranker tools tests -name '*.[ch]')

show-includes:
	@echo '$(PKG_CFLAGS)'

clean: ## remove everything that was built
	rm -rf build

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' Makefile | sed -E 's/^([a-z-]+):.*## */  \1\t/' | expand -t 14

.PHONY: build tests setup run test san bench bench-fanout bench-streams bench-pages chaos-fanout bench-move-in fuzz fuzz-coverage api-check lint fmt show-includes clean help
.SECONDARY:
