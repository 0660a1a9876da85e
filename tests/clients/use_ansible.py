"""Runs Ansible's own module community.general.haproxy (PyPI package ansible),
in this process, with its arguments as Ansible would send them."""

import contextlib
import io
import json
import runpy
import sys

from ansible.module_utils import basic

MODULE = "ansible_collections.community.general.plugins.modules.haproxy"


def run(**arguments):
    arguments |= {"socket": sys.argv[1], "host": "s1", "wait_interval": 1}
    basic._ANSIBLE_ARGS = json.dumps({"ANSIBLE_MODULE_ARGS": arguments}).encode()
    basic._ANSIBLE_PROFILE = "legacy"  # asked for since ansible-core 2.19
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.suppress(SystemExit):
        runpy.run_module(MODULE, run_name="__main__")
    result = json.loads(said.getvalue())
    assert not result.get("failed"), result
    return result


def after(result):
    [state] = result["state_after"]
    return state["status"], state["weight"]


result = run(state="disabled", backend="nodes", wait=True, shutdown_sessions=True)
assert after(result)[0] == "MAINT" and result["changed"], result
assert result["output"][0].split("\n\n")[0] == "1 (initial 1)", result
result = run(state="enabled", weight="5")
assert after(result) == ("no check", "5") and result["changed"], result
result = run(state="drain", backend="nodes", wait=True)
assert after(result)[0] == "DRAIN", result
result = run(state="disabled", backend="nodes", drain=True, wait=True)
assert after(result)[0] == "MAINT", result
result = run(state="enabled", backend="nodes", health=True, agent=True)
assert "Health check was not configured" in result["output"][0], result
print("ok")
