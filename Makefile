PYTHON ?= python
MNIST ?= mnist

.PHONY: test lint format doc references benchmarks guard

test:
	$(PYTHON) -m pytest

lint:
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .

format:
	$(PYTHON) -m ruff check --fix .
	$(PYTHON) -m ruff format .

doc:
	$(MAKE) -C doc html SPHINXBUILD="$(abspath $(shell command -v $(PYTHON))) -m sphinx"

guard:
	$(PYTHON) -m benchmarks.guard

references:
	$(PYTHON) -m benchmarks.references

# what no page cites goes to build/, which git ignores
benchmarks:
	$(PYTHON) -m benchmarks.kernels --json build/kernels.json
	$(PYTHON) -m benchmarks.solver --json benchmarks/results/solver.json
	$(PYTHON) -m benchmarks.curves --figure build/curves.png --json build/curves.json
	$(PYTHON) -m benchmarks.quasi --json build/quasi.json
	$(PYTHON) -m benchmarks.correction --samples 64000 1000 --json build/correction.json
	$(PYTHON) -m benchmarks.certificates --json build/certificates.json
	$(PYTHON) -m benchmarks.barycenters --json build/barycenters.json
	$(PYTHON) -m benchmarks.error_bars --json build/error_bars.json
	$(PYTHON) -m benchmarks.textures --json build/textures.json
	$(PYTHON) -m benchmarks.algorithm
	$(PYTHON) -m benchmarks.classes --json build/classes.json
	$(PYTHON) -m benchmarks.threads --json build/threads.json
	$(PYTHON) -m benchmarks.choosing --json benchmarks/results/choosing.json
	$(PYTHON) -m benchmarks.memory --threads 1 2 --json benchmarks/results/memory.json
	$(PYTHON) -m benchmarks.multilevel --json build/multilevel.json
	$(PYTHON) -m benchmarks.network --json benchmarks/results/network.json
	$(PYTHON) -m benchmarks.distributed --json benchmarks/results/distributed.json
	$(PYTHON) -m benchmarks.distributed --ranks 1 2 --share atoms --json benchmarks/results/distributed_atoms.json
	$(PYTHON) -m benchmarks.scaling --n-atoms 1e3 1e4 --chi2 .05 --mnist $(MNIST) --json benchmarks/results/scaling.json
	$(PYTHON) -m benchmarks.scaling --headline --seeds 2 --json benchmarks/results/headline.json
	$(PYTHON) -m benchmarks.training --mnist $(MNIST) --json benchmarks/results/training.json
	for s in 90 180; do $(PYTHON) -m benchmarks.training --mnist $(MNIST) --atoms 60000 --seconds $$s \
	  --recipe ours energy cityblock wgan_gp --json benchmarks/results/training_$$s.json; done
	$(PYTHON) -m benchmarks.training_curves --mnist $(MNIST) --json benchmarks/results/training_curves.json \
	  --figure benchmarks/results/training/curves.png --ends benchmarks/results/training_90.json benchmarks/results/training_180.json
	$(PYTHON) -m benchmarks.paper --mnist $(MNIST) --json benchmarks/results/paper.json --figures benchmarks/results/paper
	$(PYTHON) -m benchmarks.gallery --mnist $(MNIST)
