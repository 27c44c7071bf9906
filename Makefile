# Every target does its own set-up. `make .venv` alone is quick when there is nothing to do.
PYTHON ?= python3
BIN := .venv/bin

# The photo and the words of `make demo`; change them on the command line: make demo DEMO_PROMPT="..."
DEMO_PHOTO ?= data_samples/photos/astronaut.jpg
DEMO_PROMPT ?= the camera pans left quickly
DEMO_ARGS ?= --seed 0

# Idle OpenMP threads must not spin: two torch processes would slow each other many times over.
export GOMP_SPINCOUNT ?= 1000

.DEFAULT_GOAL := help
.PHONY: help .venv demo test lab lint lock versions fuzz soak clean notebooks exercises experiments gallery site site-check slides

help:
	@echo "make demo   a photo becomes a clip: outputs/demo/{clip.mp4,clip.png,clip_flow.png}"
	@echo "make test   lint, tests, notebooks        make lab    JupyterLab, open at notebook 00"
	@echo "make notebooks  run them and keep their outputs   make exercises  write notebooks/exercises from them"
	@echo "make experiments  what the notebooks conclude from (EXP=\"views\" for some): notebooks/results/*.json, minutes"
	@echo "make gallery  the README's gallery, from data_samples/controls/"
	@echo "make site   the course as a website: outputs/site/html        make slides  slides from the notebooks: outputs/slides"
	@echo "make fuzz   damaged files for every reader, ten minutes      make soak   kills, full disks, memory, seven minutes"
	@echo "make .venv  the set-up alone              make clean  remove caches and outputs (not .venv, not runs)"

.venv: $(BIN)/.ready

# torch goes first and alone: nothing after it may pull another one. It needs much room; the rest is small beside it.
$(BIN)/.ready: pyproject.toml requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or later is needed; $(PYTHON) is `$(PYTHON) --version 2>&1`. Try: make PYTHON=python3.12 .venv" >&2; exit 1; }
	@echo "Setting up .venv, once: this downloads PyTorch and 2 GB in all, takes minutes, and says nothing meanwhile."
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -q --disable-pip-version-check "$$(grep '^torch==' requirements.lock)" -c requirements.lock
	$(BIN)/python -m pip install -q --disable-pip-version-check -e '.[notebooks,test]' -c requirements.lock
	@touch $@

demo: .venv
	$(BIN)/mi2v animate $(DEMO_PHOTO) --prompt "$(DEMO_PROMPT)" $(DEMO_ARGS) --previews -o outputs/demo/clip.mp4
	@ls -l outputs/demo/clip.mp4 outputs/demo/clip.png outputs/demo/clip_flow.png

test: lint
	$(BIN)/pytest -q --durations=15 tests
	@if ls notebooks/*.ipynb >/dev/null 2>&1; then $(BIN)/pytest -q --nbmake --nbmake-timeout=600 notebooks/[0-9]*.ipynb; fi

lint: .venv
	$(BIN)/ruff check mi2v_lite tests tools notebooks
	$(BIN)/ruff format --check mi2v_lite tests tools notebooks

# Executes the notebooks (NB="00 03" for some) and keeps what they print and draw.
notebooks: .venv
	$(BIN)/python notebooks/course.py run $(NB)
	$(MAKE) exercises

exercises: .venv
	$(BIN)/python notebooks/course.py exercises

# Experiments over several seeds, whose results the notebooks show (EXP="views long_motion" for some).
experiments: .venv
	cd notebooks && ../$(BIN)/python -m experiments $(EXP)

# Eight clips of things that were taken hold of in the shipped photos: data_samples/controls/*.json -> data_samples/gallery.png
gallery: .venv
	$(BIN)/python notebooks/gallery.py

# Damaged files and drawn values for every reader, ten minutes in all (SECONDS=600 for each; TARGETS="video npz" for some).
fuzz: .venv
	$(BIN)/python -m tools.fuzz $(TARGETS) $(if $(SECONDS),--seconds $(SECONDS))

# Kills, full disks, dead workers, two at once, memory over many clips; SOAK=--long for two hours and 500 clips.
soak: .venv
	$(BIN)/python -m tools.soak $(SOAK)

# The unit tests with the oldest, the pinned and the newest dependencies: about 15 GB in runs/versions.
versions: .venv
	$(BIN)/python -m tools.versions

# Opens notebook 00; notebooks/lab says how JupyterLab is set up. Further options: make lab LAB_ARGS="--no-browser --ip=0.0.0.0"
# In a notebook that is not trusted, clips stay black and widgets stay pictures when it is opened again. A terminal
# in JupyterLab finds `mi2v`.
lab: .venv
	-$(BIN)/jupyter trust notebooks/*.ipynb
	PATH=$(CURDIR)/$(BIN):$$PATH JUPYTER_CONFIG_PATH=$(CURDIR)/notebooks/lab$${JUPYTER_CONFIG_PATH:+:$$JUPYTER_CONFIG_PATH} $(BIN)/jupyter lab $(LAB_ARGS)

# The site and the slides need packages that nothing else does; they have an environment of their own.
SITE := .venv-site
STATIC = $(shell $(SITE)/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
$(SITE)/.ready: docs/site/requirements.txt
	test -x $(SITE)/bin/python || $(PYTHON) -m venv $(SITE)
	$(SITE)/bin/python -m pip install -q --disable-pip-version-check -r docs/site/requirements.txt
	@touch $@

site: $(SITE)/.ready
	$(SITE)/bin/python docs/site/stage.py outputs/site/source
	$(SITE)/bin/sphinx-build -q -b html outputs/site/source outputs/site/html
	@echo "open outputs/site/html/index.html"

# axe-core, links, alternative texts and the width of a phone, in Chromium (apt-get install chromium).
site-check: site
	$(SITE)/bin/python docs/site/check.py outputs/site/html

# Slides (NB="00 03" for some), with all that they need beside them.
slides: .venv $(SITE)/.ready
	mkdir -p outputs/slides/reveal.js
	cp -R $(STATIC)/sphinx_revealjs/_static/revealjs/dist/. $(STATIC)/sphinx_revealjs/_static/revealjs/plugin outputs/slides/reveal.js
	cp -R $(STATIC)/sphinx-mathjax-offline/static/mathjax outputs/slides
	$(BIN)/python notebooks/course.py slides outputs/slides $(NB)

# Pins for requirements.lock from the present .venv: plain names and versions, for any platform.
lock: .venv
	$(BIN)/pip freeze --all --exclude-editable | grep -v '^pip==' | sed 's/+[a-z0-9.]*$$//' > requirements.lock
	@touch $(BIN)/.ready

clean:
	rm -rf outputs .pytest_cache .ruff_cache .hypothesis build *.egg-info
	find mi2v_lite tests tools notebooks -name __pycache__ -prune -exec rm -rf {} + 

# All lite weights from nothing, in one go: about nine hours on two cores. An interrupted run goes on where it stopped, and
# what is done is not done again. runs/photos must be filled and the film be in FILM (tools/things/README.md says how).
FILM ?= runs/bbb.mp4
LITE := mi2v_lite/configs/lite.yaml
.PHONY: data weights card
data: .venv
	test -f runs/things/things.json || test ! -d runs/photos || $(BIN)/python -m tools.things.masks --photos runs/photos --out runs/things
	test -f runs/stores/film/clips.json || test ! -f $(FILM) || \
	    $(BIN)/mi2v world -o runs/stores/film --film $(FILM) --split train --clips 200

weights: data
	$(BIN)/mi2v train $(LITE)
	$(BIN)/mi2v export $(LITE) -o mi2v_lite/weights/lite
	$(MAKE) card

# The logs of the run, their curves, and the table of updates, minutes and losses for the card mi2v_lite/weights/README.md.
card: .venv
	rm -f mi2v_lite/weights/logs/*.csv && mkdir -p mi2v_lite/weights/logs
	for log in runs/*/log.csv; do cp $$log mi2v_lite/weights/logs/$$(basename $$(dirname $$log)).csv; done
	$(BIN)/mi2v curves mi2v_lite/weights/logs -o mi2v_lite/weights/curves.png

# What is done with the warped features, three ways and three seeds each, after `make weights`; `mi2v evaluate --ablation runs`.
.PHONY: ablation
ablation: .venv
	$(BIN)/mi2v train mi2v_lite/configs/ablation.yaml

# first edition: goes with the weights that were trained on it. What it brings the stages to start where the paper's do.
FIRST := mi2v_lite/configs/lite_first.yaml
FIRST_STEPS := image_vae flow_vae stage1_start_image stage1_start_video stage1_single stage1_objects stage1_both stage1_world \
	stage1_decoded stage1_temporal stage1_full controlnet_single controlnet stage2_start_image stage2_start_video stage2_coarse \
	stage2_pieces stage2
TRIALS := stage1_trial_nothing stage1_trial_image stage1_trial_temporal_nothing stage1_trial_temporal_video \
	stage2_trial_nothing stage2_trial_image stage2_trial_video
TRAIN = test -d runs/first/$$step/final || $(BIN)/mi2v train $(FIRST) --runs runs/first --step $$step --resume || exit 1
# $(call store,NAME,OPTIONS) writes a store unless it is there.
store = test -f runs/first/stores/$(1)/clips.json || $(BIN)/mi2v world -o runs/first/stores/$(1) $(2)
WORLD := --sprites data_samples/sprites --edition 1
TRAIN_WORLD := $(WORLD) --photos runs/photos/train --split train
.PHONY: starts
starts: .venv
	mkdir -p runs/first && ln -sfn ../photos runs/first/photos
	$(call store,train,$(TRAIN_WORLD) --clips 2000)
	$(call store,objects,$(TRAIN_WORLD) --objects-only --seed 100000 --clips 2000)
	$(call store,more,$(TRAIN_WORLD) --seed 200000 --clips 3000)
	$(call store,more_objects,$(TRAIN_WORLD) --objects-only --seed 300000 --clips 2500)
	$(call store,pairs,$(TRAIN_WORLD) --seed 400000 --clips 24000 --pairs 4)
	$(call store,pairs_objects,$(TRAIN_WORLD) --objects-only --seed 500000 --clips 8000 --pairs 4)
	$(call store,film,--film $(FILM) --split train --clips 200)
	$(call store,film_pairs,--film $(FILM) --split train --clips 200 --pairs 15)
	$(call store,heldout,$(WORLD) --photos runs/photos/heldout data_samples/photos --split heldout --clips 96)
	for step in $(FIRST_STEPS) $(TRIALS); do $(TRAIN); done
