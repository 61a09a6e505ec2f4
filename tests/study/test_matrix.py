"""The graph of jobs, as golden text, and the order in which they run."""

import json

from nnunet_attn.study.driver import pending_jobs, write_jobs
from nnunet_attn.study.markers import Done, read_done

TEXT = """\
name: short
device: cpu
datasets:
  - dataset: 901
    configuration: 2d
    test: true
rows:
  - nnUNetTrainer
  - {row: nnUNetTrainerDCAUNet, repeats: 2}
schedule: 2epochs
"""
GRAPH = """\
plan/Dataset901_Blobs
preprocess/Dataset901_Blobs/nnUNetPlans__2d
  after plan/Dataset901_Blobs
train/Dataset901_Blobs/nnUNetTrainer_2epochs__nnUNetPlans__2d/fold_0
  after preprocess/Dataset901_Blobs/nnUNetPlans__2d
train/Dataset901_Blobs/nnUNetTrainer_2epochs__nnUNetPlans__2d/fold_1
  after preprocess/Dataset901_Blobs/nnUNetPlans__2d
train/Dataset901_Blobs/nnUNetTrainerDCAUNet_2epochs__nnUNetPlans__2d/fold_0
  after preprocess/Dataset901_Blobs/nnUNetPlans__2d
train/Dataset901_Blobs/nnUNetTrainerDCAUNet_2epochs__nnUNetPlans__2d/fold_1
  after preprocess/Dataset901_Blobs/nnUNetPlans__2d
train/Dataset901_Blobs/nnUNetTrainerDCAUNet_2epochs_run2__nnUNetPlans__2d/fold_0
  after preprocess/Dataset901_Blobs/nnUNetPlans__2d
train/Dataset901_Blobs/nnUNetTrainerDCAUNet_2epochs_run2__nnUNetPlans__2d/fold_1
  after preprocess/Dataset901_Blobs/nnUNetPlans__2d
predict/Dataset901_Blobs/nnUNetTrainer_2epochs__nnUNetPlans__2d
  after train/Dataset901_Blobs/nnUNetTrainer_2epochs__nnUNetPlans__2d/fold_0
  after train/Dataset901_Blobs/nnUNetTrainer_2epochs__nnUNetPlans__2d/fold_1
predict/Dataset901_Blobs/nnUNetTrainerDCAUNet_2epochs__nnUNetPlans__2d
  after train/Dataset901_Blobs/nnUNetTrainerDCAUNet_2epochs__nnUNetPlans__2d/fold_0
  after train/Dataset901_Blobs/nnUNetTrainerDCAUNet_2epochs__nnUNetPlans__2d/fold_1
predict/Dataset901_Blobs/nnUNetTrainerDCAUNet_2epochs_run2__nnUNetPlans__2d
  after train/Dataset901_Blobs/nnUNetTrainerDCAUNet_2epochs_run2__nnUNetPlans__2d/fold_0
  after train/Dataset901_Blobs/nnUNetTrainerDCAUNet_2epochs_run2__nnUNetPlans__2d/fold_1"""


def test_the_graph_of_jobs(small):
    assert small.matrix(TEXT).text() == GRAPH


def priorities(matrix) -> dict[str, int]:
    jobs = pending_jobs(matrix, Done())
    matrix.layout.folder.mkdir(exist_ok=True)
    content = json.loads(write_jobs(matrix, jobs).read_text())
    return {name: facts["priority"] for name, facts in content["jobs"].items()}


def test_all_rows_train_fold_0_before_any_trains_fold_1_and_repeats_come_last(small):
    matrix = small.matrix(TEXT)
    rank = priorities(matrix)
    trained = sorted(matrix.trainings, key=lambda job: -rank[job.id])
    assert [(job.model.repeat, job.fold) for job in trained] == [(1, 0), (1, 0), (1, 1), (1, 1), (2, 0), (2, 1)]
    assert min(rank[job.id] for job in matrix.jobs.values() if not job.order) > rank[trained[0].id]


def test_groups_of_rows_come_one_after_the_other(small):
    rows = "rows:\n  - [nnUNetTrainer, nnUNetTrainerDCAUNet]\n  - [nnUNetTrainerStockAdamW]\n"
    matrix = small.matrix(TEXT[: TEXT.index("rows:")] + rows + "schedule: 2epochs\n")
    rank = priorities(matrix)
    last = [job.model.row == 2 for job in sorted(matrix.trainings, key=lambda job: -rank[job.id])]
    assert last == [False] * 4 + [True] * 2


def test_a_row_that_is_added_is_all_that_is_left_to_train(small):
    matrix = small.matrix()
    for job in matrix.trainings:
        small.train(matrix, job)
    assert pending_jobs(matrix, read_done(matrix)) == {}
    matrix = small.matrix(small.file.read_text().replace("rows:\n", "rows:\n  - nnUNetTrainerStockAdamW\n"))
    kinds = [job.id.split("/")[-2:] for job in pending_jobs(matrix, read_done(matrix)).values() if job.kind == "train"]
    name = "nnUNetTrainerStockAdamW_2epochs_4iterations__nnUNetPlans__2d"
    assert kinds == [[name, "fold_0"], [name, "fold_1"]]
