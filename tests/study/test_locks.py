"""Who holds a lock, and what happens to the locks of the dead."""

import json
import multiprocessing
import os
import socket
import time

import pytest

from nnunet_attn.errors import UserError
from nnunet_attn.study import locks
from nnunet_attn.study.locks import Lock, held, is_alive, process_start, read_lock, this_process, waited_for
from tests.study.conftest import dead_process


def test_a_second_holder_is_told_who_the_first_is(tmp_path):
    said = rf"the study x is being run by process {os.getpid()} on {socket.gethostname()}"
    with held(tmp_path / "a.lock", "the study x"):
        with pytest.raises(UserError, match=said), held(tmp_path / "a.lock", "the study x"):
            pass
        assert read_lock(tmp_path / "a.lock")["host"] == socket.gethostname()
    assert list(tmp_path.iterdir()) == []


def test_the_lock_of_a_dead_process_is_named_and_taken_over(tmp_path):
    said = []
    pid = dead_process()
    content = this_process() | {"processes": {str(pid): "123"}}
    (tmp_path / "a.lock").write_text(json.dumps(content))
    with held(tmp_path / "a.lock", "x", said.append):
        assert read_lock(tmp_path / "a.lock")["processes"] == {str(os.getpid()): process_start(os.getpid())}
    assert f"left behind by process {pid}" in said[0]
    assert list(tmp_path.iterdir()) == []


def test_a_number_used_again_after_a_restart_is_no_sign_of_life():
    content = this_process()
    assert is_alive(content)
    assert not is_alive(content | {"processes": {str(os.getpid()): "1"}})  # another process got the number
    assert not is_alive(content | {"boot": "another"})
    assert is_alive(content | {"host": "elsewhere"}) is None  # cannot be told from here
    assert not is_alive({})


def test_a_lock_stays_held_while_the_training_outlives_its_job(tmp_path):
    child = multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,))
    child.start()
    try:
        lock = Lock(tmp_path / "a.lock")
        lock.try_take(print)
        lock.add_process(child.pid)
        content = read_lock(tmp_path / "a.lock")
        del content["processes"][str(os.getpid())]  # as if this process was killed
        assert is_alive(content)
    finally:
        child.kill()
        child.join()
    assert not is_alive(content)
    lock.release()


def test_another_hosts_lock_is_watched(tmp_path, monkeypatch):
    monkeypatch.setattr(locks, "PATIENCE", 2.0)
    path, said = tmp_path / "a.lock", []
    path.write_text(json.dumps(this_process() | {"host": "elsewhere"}))
    pulse = multiprocessing.get_context("fork").Process(target=_touch, args=(path,))
    pulse.start()
    try:
        assert Lock(path).try_take(said.append)["host"] == "elsewhere"
    finally:
        pulse.kill()
        pulse.join()
    lock = Lock(path)
    assert lock.try_take(said.append) is None  # it is not touched any more
    assert "left behind by" in said[-1]
    lock.release()


def _touch(path):
    while True:
        os.utime(path)
        time.sleep(0.1)


def _count(path, counter):
    for _ in range(20):
        with waited_for(path, "x", lambda _: None, pause=0.001):
            value = int(counter.read_text())
            time.sleep(0.001)
            counter.write_text(str(value + 1))


def test_only_one_holds_it_at_a_time(tmp_path):
    counter = tmp_path / "counter"
    counter.write_text("0")
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=_count, args=(tmp_path / "a.lock", counter)) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert counter.read_text() == "80"
