"""The trainer, sharded on two CPU processes: Accelerate shards on accelerators only, so its state is set by hand here.

Run by tests/test_scale.py through `accelerate launch` with the settings of configs/fsdp.yaml in the environment.
"""

import sys

from accelerate import Accelerator
from accelerate.state import AcceleratorState, PartialState
from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin
from torch.distributed.tensor import DTensor

from mi2v_lite import cli
from mi2v_lite.training import trainer

if __name__ == "__main__":
    Accelerator(cpu=True)
    for state in (AcceleratorState, PartialState):
        state._shared_state["distributed_type"] = DistributedType.FSDP
    AcceleratorState._shared_state["fsdp_plugin"] = FullyShardedDataParallelPlugin(fsdp_version=2)
    update = trainer._update

    def counted(accelerator, module, optimizer, task, parameters, k):
        kept = sum(value.to_local().numel() for value in parameters.values() if isinstance(value, DTensor))
        whole = sum(value.numel() for value in parameters.values())
        print(f"process {accelerator.process_index} keeps {kept} of {whole}", flush=True)
        return update(accelerator, module, optimizer, task, parameters, k)

    trainer._update = counted
    sys.exit(cli.main(["train", *sys.argv[1:]]))
