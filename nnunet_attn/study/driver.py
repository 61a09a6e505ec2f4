"""``study run``: list the jobs to do, let Snakemake run them, and report at the end what failed."""

import importlib.util
import os
import shlex
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from nnunet_attn.errors import UserError
from nnunet_attn.files import write_json
from nnunet_attn.study.commands import tail
from nnunet_attn.study.gpus import visible_gpus
from nnunet_attn.study.locks import held
from nnunet_attn.study.markers import Done, before_text, read_done, remove_markers
from nnunet_attn.study.matrix import Job, Matrix
from nnunet_attn.study.outputs import read_json, set_aside
from nnunet_attn.study.prepare import remove_data

TAIL = 12  # lines of a failed job's log
PREPARATION = min(8, os.cpu_count() or 1)  # threads of a conversion, planning or preprocessing job
# Options of ours that the user may override after "--", with all names that Snakemake has for each.
WHERE = ("--executor", "-e", "--profile", "--workflow-profile", "--cores", "-c", "--jobs", "-j", "--local-cores")


def pending_jobs(matrix: Matrix, done: Done) -> dict[str, Job]:
    """The jobs to run: unfinished trainings and predictions, and the preparation that they still need."""
    wanted: dict[str, Job] = {}

    def want(job_id: str) -> None:
        if job_id not in done.markers and job_id not in wanted:
            for need in matrix.jobs[job_id].needs:
                want(need)
            wanted[job_id] = matrix.jobs[job_id]

    for job in matrix.jobs.values():
        if job.kind in ("train", "predict"):
            want(job.id)
    return wanted


def job_command(matrix: Matrix) -> list[str]:
    """The command that does a job, without the job's id; it works from any folder and on any node."""
    study = ["study", "job", str(matrix.study.file.resolve()), "--folder", str(matrix.layout.folder)]
    return [sys.executable, "-m", "nnunet_attn.cli.main", *study]


def write_jobs(matrix: Matrix, jobs: dict[str, Job]) -> Path:
    """The jobs as a file for the Snakefile."""
    levels = sorted({job.order[:3] for job in matrix.jobs.values() if job.order}, reverse=True)
    rank = {level: i + 1 for i, level in enumerate(levels)}
    content = {
        "command": shlex.join(job_command(matrix)),
        "targets": list(jobs),
        "jobs": {
            job.id: {
                "needs": [need for need in job.needs if need in jobs],
                "threads": job.threads if job.order else PREPARATION,
                "gpu": job.gpus,
                "priority": rank[job.order[:3]] if job.order else len(levels) + 1,
            }
            for job in sorted(jobs.values(), key=lambda job: job.order)
        },
    }
    path = matrix.layout.folder / "jobs.json"
    write_json(path, content)
    return path


def snakemake_arguments(matrix: Matrix, jobs_file: Path, more: Sequence[str]) -> list[str]:
    """Snakemake's command line; the user's arguments after ``--`` come last and take precedence."""
    given = {word.partition("=")[0] for word in more}
    where: list[str] = []
    if not given.intersection(WHERE):
        where = ["--cores", "all"]
    gpus = max((job.gpus for job in matrix.jobs.values()), default=0)
    if gpus and not given.intersection(("--executor", "-e", "--profile", "--workflow-profile", "--resources", "--res")):
        have = 1 if matrix.study.device == "mps" else len(visible_gpus())
        if have < gpus:
            raise UserError(f"device: cuda, but this machine has {have} GPUs and a training needs {gpus}; set device: "
                            "cpu, or run on Slurm: nnunet-attn study run ... -- --executor slurm --jobs 8")  # fmt: skip
        where += ["--resources", f"gpu={have}"]
    return [
        "--snakefile", str(Path(__file__).with_name("Snakefile")),
        "--directory", str(matrix.layout.folder),
        "--config", f"jobs={jobs_file}",
        "--rerun-triggers", "mtime",
        "--rerun-incomplete", "--keep-going", "--nolock",
        "--scheduler", "greedy",
        *(("--retries", str(matrix.study.retries)) if matrix.study.retries else ()),
        "--latency-wait", "60",
        *where, *more,
    ]  # fmt: skip


def is_dry_run(more: Sequence[str]) -> bool:
    """Whether Snakemake takes the user's arguments for a dry run, also in a form like ``-np``."""
    import snakemake.cli

    return bool(snakemake.cli.get_argument_parser().parse_known_args(list(more))[0].dryrun)


def call_snakemake(arguments: Sequence[str]) -> int:
    """Run Snakemake in this process; returns its exit code.

    Snakemake installs a handler of SIGTERM and leaves it behind. Processes forked later would inherit it, and a pool of
    such processes cannot be terminated: ``Pool.terminate`` waits for ever for a worker that waits for work.
    """
    import snakemake.cli

    before = signal.getsignal(signal.SIGTERM)
    try:
        snakemake.cli.main(list(arguments))
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    finally:
        signal.signal(signal.SIGTERM, before)
    return 0


def run_study(matrix: Matrix, more: Sequence[str], *, retrain: bool) -> int:
    """Run all unfinished jobs; returns exit code 0 if everything is done afterwards, else 1.

    Args:
        matrix: The study.
        more: Further arguments for Snakemake.
        retrain: Whether to repeat trainings whose inputs changed.

    Raises:
        UserError: Snakemake is not installed, another process runs this study, or ``retrain`` in a dry run.
    """
    if importlib.util.find_spec("snakemake") is None:
        raise UserError('running a study needs Snakemake: pip install "nnunet-attn[study]"')
    dry = is_dry_run(more)
    if retrain and dry:
        raise UserError("--retrain sets trainings aside before Snakemake starts, so it cannot be part of a dry run; "
                        "study check shows which trainings it would repeat")  # fmt: skip
    layout = matrix.layout
    layout.folder.mkdir(parents=True, exist_ok=True)
    with held(layout.folder / "study.lock", f"the study {matrix.study.name}"):
        done = read_done(matrix, hash_files=True)
        _sort_out(matrix, done, retrain=retrain, dry=dry)
        jobs = pending_jobs(matrix, done)
        trainings = sum(job.kind == "train" for job in matrix.jobs.values())
        left = sum(job.kind == "train" for job in jobs.values())
        print(f"{matrix.study.name}: {trainings - left} of {trainings} trainings done, {len(jobs)} jobs to run; logs "
              f"in {layout.folder / 'logs'}", file=sys.stderr, flush=True)  # fmt: skip
        if not jobs:
            return 0
        arguments = snakemake_arguments(matrix, write_jobs(matrix, jobs), more)
        sys.stderr.flush()
        code = call_snakemake(arguments)
        if dry:
            return code
        return _summary(matrix, jobs, code)


def _sort_out(matrix: Matrix, done: Done, *, retrain: bool, dry: bool) -> None:
    """Remove markers of jobs whose outputs are gone, unless in a dry run; with ``retrain``, undo what has changed."""
    for job, reason in done.gone.items():
        print(f"not done any more: {job}: {reason}", file=sys.stderr)
    if not dry:
        remove_markers(matrix.layout, list(done.gone))
    for job, changed in done.flags.items():
        print(f"{job}: {before_text(job, changed)}", file=sys.stderr)
    if done.flags and not retrain:
        print("  these are kept; --retrain does them again", file=sys.stderr)
    elif done.flags:
        _undo(matrix, done)


def _undo(matrix: Matrix, done: Done) -> None:
    """Set aside what was trained on inputs that changed, remove the preprocessed data, and forget the predictions.

    The data go last: while they are there, a call after one that was killed finds what it left undone.
    """
    layout = matrix.layout
    old = [job for job in matrix.jobs.values() if job.kind == "preprocess" and job.id in done.flags]
    again = {job.id for job in old}
    for job in matrix.jobs.values():
        fold = layout.results / job.id.partition("/")[2]
        if job.kind == "train" and (job.id in done.flags or (fold.is_dir() and not again.isdisjoint(job.needs))):
            print(f"  {job.id}: will be trained again; the old folder is now {set_aside(fold, 'before').name}",
                  file=sys.stderr)  # fmt: skip
            again.add(job.id)
        if job.kind == "predict" and not again.isdisjoint(job.needs):
            again.add(job.id)
    for job in old:
        remove_data(matrix, job)
        print(f"  {job.id}: its data are removed and made again; fingerprint and plans are kept", file=sys.stderr)
    remove_markers(layout, list(again))
    for job_id in again:
        done.markers.pop(job_id, None)


def _summary(matrix: Matrix, jobs: dict[str, Job], code: int) -> int:
    """Print what was done and what was not, with the last lines of the logs of failed jobs."""
    missing = [job for job in jobs if not matrix.layout.marker(job).is_file()]
    failed = []
    for job in missing:
        attempt = read_json(matrix.layout.state(job))
        if isinstance(attempt, dict):
            failed.append(job)
            log = matrix.layout.log(job)
            print(f"\n{job}: {attempt.get('reason', 'was killed; continues when the study is run again')}\n  {log}",
                  file=sys.stderr)  # fmt: skip
            print("\n".join(f"  | {line}" for line in tail(log, TAIL)), file=sys.stderr)
    print(f"\n{len(jobs) - len(missing)} of {len(jobs)} jobs done, {len(failed)} failed or stopped, "
          f"{len(missing) - len(failed)} not started", file=sys.stderr, flush=True)  # fmt: skip
    if missing:
        return 1
    print(f"nnunet-attn study report {matrix.study.file} writes the report", file=sys.stderr)
    return int(code != 0)
