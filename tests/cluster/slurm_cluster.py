"""A real Slurm on one machine: munged, slurmctld and four slurmd, told apart by their ports. Needs root, no systemd."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from free_ports import free_ports

NODES = 4
PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch")

# proctrack/pgid would leave the ranks alive after scancel, since torchrun starts them in sessions of their own.
# cred_expire: a requeued job is put off by that long.
_CONFIG = """\
ClusterName=test
SlurmctldHost=localhost
SlurmctldPort={controller_port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.sock,cred_expire=5
CommunicationParameters=NoInAddrAny
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool.%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=bf_interval=1,sched_interval=5,batch_sched_delay=0
SlurmdParameters=config_overrides
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
ReturnToService=2
KillWait=10
MinJobAge=600
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
GresTypes=gpu
NodeName=node[1-{nodes}] NodeHostname=localhost NodeAddr=127.0.0.1 Port=[{ports}] CPUs=2 RealMemory=1000 Gres=gpu:2
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE DefaultTime=10 PriorityTier=1 GraceTime=60
PartitionName=urgent Nodes=ALL MaxTime=INFINITE DefaultTime=10 PriorityTier=10
"""

# Slurm takes any two device files for GPUs; torch finds none, so ranks compute on the CPU.
_GPUS = "NodeName=node[1-{nodes}] Name=gpu File=/dev/null,/dev/zero\n"

_END_STATES = frozenset({"COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "PREEMPTED", "OUT_OF_MEMORY"})


def missing() -> str | None:
    """Why there can be no Slurm here, or None."""
    if os.geteuid() != 0:
        return "needs root"
    absent = [program for program in PROGRAMS if shutil.which(program) is None]
    if absent:
        return f"no {', '.join(absent)}; apt-get install slurmctld slurmd slurm-client munge"
    return None


class SlurmCluster:
    """The running cluster. `stop` ends the daemons that `start` started, and nothing else."""

    def __init__(self) -> None:
        # Not under pytest's folder, which only its owner may enter: munged wants a socket that all can reach.
        self.folder = Path(tempfile.mkdtemp(prefix="slurm-", dir="/tmp"))
        self.folder.chmod(0o755)
        self.environment = {**os.environ, "SLURM_CONF": str(self.folder / "slurm.conf")}

    def start(self) -> None:
        """Start the daemons, wait for four idle nodes; RuntimeError with the end of the logs when they do not come."""
        folder = self.folder
        first = free_ports(NODES + 1, host="")[0]
        config = _CONFIG.format(folder=folder, nodes=NODES, controller_port=first, ports=f"{first + 1}-{first + NODES}")
        (folder / "slurm.conf").write_text(config)
        (folder / "gres.conf").write_text(_GPUS.format(nodes=NODES))
        key = folder / "munge.key"
        key.write_bytes(os.urandom(128))
        key.chmod(0o400)
        self._run(
            "munged",
            f"--key-file={key}",
            f"--socket={folder}/munge.sock",
            f"--pid-file={folder}/munged.pid",
            f"--log-file={folder}/munged.log",
            f"--seed-file={folder}/munge.seed",
        )
        self._run("slurmctld", "-c", "-i")
        for number in range(1, NODES + 1):
            (folder / f"spool.node{number}").mkdir()
            self._run("slurmd", "-N", f"node{number}", "-c")
        if not _wait_for(lambda: self._ask("sinfo", "-h", "-t", "idle", "-o", "%D") == str(NODES), 30):
            logs = "\n".join(log.read_text()[-500:] for log in sorted(folder.glob("*.log")))
            raise RuntimeError(f"Slurm did not start: {logs}")

    def sbatch(self, *arguments: str, cwd: Path, **environment: str) -> str:
        """Submit; returns the job's id."""
        return self._run(
            "sbatch", "--parsable", *arguments, cwd=cwd, environment={**self.environment, **environment}
        ).strip()

    def run(self, *command: str) -> str:
        """A client command, e.g. scancel; returns what it printed."""
        return self._run(*command)

    def job(self, job: str) -> dict[str, str]:
        """What `scontrol show job` says: JobState, Restarts, ExitCode, ..."""
        words = self._ask("scontrol", "-o", "show", "job", job).split()
        return dict(word.split("=", 1) for word in words if "=" in word)

    def wait(self, job: str, timeout_s: float) -> dict[str, str]:
        """Wait until the job is over; returns its last state."""
        if not _wait_for(lambda: self.job(job).get("JobState") in _END_STATES, timeout_s):
            raise TimeoutError(f"job {job} is not over after {timeout_s} s: {self.job(job)}")
        return self.job(job)

    def processes(self, job: str) -> list[int]:
        """Ids of the processes on this machine that belong to the job."""
        mine = f"SLURM_JOB_ID={job}".encode()
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                if mine in (folder / "environ").read_bytes().split(b"\0"):
                    found.append(int(folder.name))
            except OSError:  # it ended meanwhile
                continue
        return found

    def stop(self) -> None:
        """Cancel what runs, end the daemons (controller first: it would log lost nodes), remove their files."""
        if (self.folder / "slurmctld.pid").exists():
            self._ask("scancel", "--user=root")
            _wait_for(lambda: self._ask("squeue", "-h") == "", 20)
        daemons = [
            int(file.read_text())
            for pattern in ("slurmctld.pid", "slurmd.*.pid", "munged.pid")
            for file in self.folder.glob(pattern)
            if file.read_text().strip()
        ]
        for number in (signal.SIGTERM, signal.SIGKILL):
            alive = [pid for pid in daemons if Path(f"/proc/{pid}").exists()]
            for pid in alive:
                os.kill(pid, number)
            if _wait_for(lambda: not any(Path(f"/proc/{pid}").exists() for pid in daemons), 5):
                break
        shutil.rmtree(self.folder)

    def _run(self, *command: str, cwd: Path | None = None, environment: dict[str, str] | None = None) -> str:
        done = subprocess.run(
            command,
            cwd=cwd or self.folder,
            env=environment or self.environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}: {done.stderr.strip()}")
        return done.stdout

    def _ask(self, *command: str) -> str:
        try:
            return self._run(*command).strip()
        except RuntimeError:
            return ""


def _wait_for(condition: Callable[[], bool], timeout_s: float) -> bool:
    end = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.2)
    return True
