"""The pack as an untouched ComfyUI sees it: loaded without a warning, with its nodes, help pages and templates."""

import re
import urllib.request


def test_the_log_has_no_complaint_about_the_pack(server):
    log = server.log.read_text(encoding="utf-8").partition("Starting server")[0]
    about = [line for line in log.splitlines() if "ei2" in line.lower() and "custom_nodes" in line]
    assert about and all(re.search(r"\s\d+\.\d seconds: \S+ComfyUI-EI2$", line) for line in about), log
    assert "IMPORT FAILED" not in log and "Traceback" not in log, log


def test_every_node_is_listed(server, ids):
    info = server.request("/object_info")
    assert [name for name in info if name.startswith("EI2")] == ids
    assert all(info[name]["python_module"] == "custom_nodes.ComfyUI-EI2" for name in ids)


def test_every_node_has_a_help_page_with_a_picture(server, ids):
    for name in ids:
        with urllib.request.urlopen(f"{server.url}/extensions/ComfyUI-EI2/docs/{name}.md") as page:
            shown = re.search(r"!\[.+\]\((\w+\.png)\)", text := page.read().decode())
        assert text.startswith("#"), name
        with urllib.request.urlopen(f"{server.url}/extensions/ComfyUI-EI2/docs/{shown[1]}") as picture:
            assert picture.read(8) == b"\x89PNG\r\n\x1a\n", name


def test_the_words_are_offered_in_chinese_too(server, ids):
    words = server.request("/i18n")
    assert set(words["zh"]["nodeDefs"]) >= set(ids) <= set(words["en"]["nodeDefs"])
    assert words["zh"]["nodeDefs"]["EI2OneShotTune"]["display_name"] == "单样本微调"


def test_the_templates_are_offered(server):
    assert {"00_demo_model", "01_first_edit"} <= set(server.request("/workflow_templates")["ComfyUI-EI2"])
