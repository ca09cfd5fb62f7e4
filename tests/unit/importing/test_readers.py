"""Where a configuration of oauth2-proxy stands, and how each place writes values."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from proxy.importing.arguments import from_arguments, from_environment, variables
from proxy.importing.flags import FLAGS
from proxy.importing.given import Elsewhere, duration_s
from tests.unit.importing.cases import HERE, run

CANARY = "canary-5c1d"


# -- the command line --


@pytest.mark.parametrize(
    ("words", "name", "value"),
    [
        (["--provider=oidc"], "provider", "oidc"),
        (["-provider=oidc"], "provider", "oidc"),
        (["--provider", "oidc"], "provider", "oidc"),
        (["oauth2-proxy", "--provider=oidc"], "provider", "oidc"),
        (["/bin/oauth2-proxy", "--provider=oidc"], "provider", "oidc"),
        (["--reverse-proxy"], "reverse-proxy", True),
        (["--cookie-secure=false"], "cookie-secure", False),
        (["--email-domain=a.example,b.example"], "email-domain", ["a.example", "b.example"]),
        (
            ["--email-domain=a.example", "--email-domain=b.example"],
            "email-domain",
            ["a.example", "b.example"],
        ),
        (['--skip-auth-route="^/a{1,2}$",^/b'], "skip-auth-route", ["^/a{1,2}$", "^/b"]),
        (["--cookie-expire=1h30m"], "cookie-expire", 5400.0),
    ],
)
def test_arguments(words: list[str], name: str, value: object) -> None:
    given = from_arguments(words)
    assert given.troubles == []
    assert given.values[name].value == value


@pytest.mark.parametrize(
    ("words", "place"),
    [
        (["--no-such-flag=x"], "--no-such-flag"),
        (["--no-such-flag", CANARY], "--no-such-flag"),
        (["--reverse-proxy=perhaps"], "--reverse-proxy"),
        (["--cookie-expire=soon"], "--cookie-expire"),
        (["--provider"], "--provider"),
        ([CANARY], "command line"),
    ],
)
def test_arguments_that_are_not_understood_are_named_without_their_value(
    words: list[str], place: str
) -> None:
    given = from_arguments(words)
    assert [where for where, _ in given.troubles] == [place]
    assert CANARY not in str(given.troubles)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("168h", 604_800), ("1h30m", 5400), ("1.5h", 5400), ("250ms", 0.25), ("0", 0), ("0s", 0), ("+1s", 1)],
)
def test_durations(text: str, seconds: float) -> None:
    assert duration_s(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "h", "1", "60", "1 h", "1d", "-1h", "1h;"])
def test_no_durations(text: str) -> None:
    with pytest.raises(ValueError, match="no duration"):
        duration_s(text)


# -- variables --


def test_variables_are_named_as_in_the_file() -> None:
    given = from_environment(
        {
            "OAUTH2_PROXY_EMAIL_DOMAINS": "a.example,b.example",
            "OAUTH2_PROXY_UPSTREAMS": "http://a",
            "OAUTH2_PROXY_GOOGLE_GROUP": "old@example.com",
            "OAUTH2_PROXY_PROVIDER": "",
            "OAUTH2_PROXY_SERVICE_HOST": "10.0.0.1",
            "OAUTH2_PROXY_PORT_4180_TCP": "tcp://10.0.0.1:4180",
            "OAUTH2_PROXY_NO_SUCH": CANARY,
            "PATH": "/bin",
        }
    )
    assert {name: value.value for name, value in given.values.items()} == {
        "email-domain": ["a.example", "b.example"],
        "upstream": ["http://a"],
        "google-group": ["old@example.com"],
    }
    assert [where for where, _ in given.troubles] == ["OAUTH2_PROXY_NO_SUCH"]
    assert CANARY not in str(given.troubles)


def test_an_env_file_may_quote_comment_and_export() -> None:
    text = "# x\nexport A=\"1 2\"\n B=3=4\nC='5'\n\nno assignment\n"
    assert variables(text) == {"A": "1 2", "B": "3=4", "C": "5"}


def test_this_environment_is_read_only_when_asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("OAUTH2_PROXY_CLIENT_ID", "from-the-environment")
    (tmp_path / "a.cfg").write_text('client_id = "from-the-file"\n')
    assert 'client_id = "from-the-file"' in run("oauth2-proxy", str(tmp_path / "a.cfg"))[1]
    out = run("oauth2-proxy", "--env", str(tmp_path / "a.cfg"))[1]
    assert 'client_id = "from-the-environment"  # OAUTH2_PROXY_CLIENT_ID' in out


def test_arguments_win_over_variables_and_those_over_files(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("OAUTH2_PROXY_CLIENT_ID", "b")
    (tmp_path / "a.cfg").write_text('client_id = "c"\n')
    files = f"--config={tmp_path / 'a.cfg'} --client-id=a"
    assert 'client_id = "a"  # --client-id' in run("oauth2-proxy", "--env", "--args", files)[1]


def test_a_file_that_the_arguments_name_and_that_is_not_here_is_asked_for() -> None:
    status, _, err = run("oauth2-proxy", "--args", "--config=/nowhere/oauth2-proxy.cfg --client-id=a")
    assert status == 1
    assert "/nowhere/oauth2-proxy.cfg: named by the arguments, but not here" in err


# -- files --


def test_a_file_may_be_loose_about_case_types_and_ends_of_lines(tmp_path: Path) -> None:
    path = tmp_path / "oauth2-proxy.cfg"
    path.write_bytes(b'\xef\xbb\xbfCLIENT_ID = "a"\r\nemail_domains = "*"\r\ncookie_secure = "true"\r\n')
    status, out, err = run("oauth2-proxy", str(path))
    assert 'client_id = "a"' in out
    assert 'allow = ["everyone"]' in out
    assert status == 1
    assert "neither true nor false" not in err


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.cfg", f'client_secret = "{CANARY}\n'),
        ("a.yaml", f"providers: [{{clientSecret: {CANARY}\n"),
        ("a.yaml", f"secret: {CANARY}\n"),
        ("a.yaml", "- 1\n"),
        ("a.json", f'{{"clientSecret": "{CANARY}"'),
        ("a.json", f'{{"secret": "{CANARY}"}}'),
        ("a.json", "[]"),
        ("a.cfg", "\udcff"),
    ],
)
def test_a_file_that_is_none_is_refused_without_its_content(name: str, content: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(content.encode(errors="surrogateescape"))
    status, out, err = run("oauth2-proxy", str(path))
    assert (status, out) == (2, "")
    assert err.startswith("nightporter: 1 problem(s)")
    assert CANARY not in err


def test_a_file_that_is_not_there_and_nothing_at_all_are_refused() -> None:
    assert run("oauth2-proxy", "/nowhere.cfg")[0] == 2
    assert run("oauth2-proxy")[0] == 2
    assert run("another-proxy", "x.cfg")[0] == 2


def test_without_pyyaml_it_is_said_what_to_install(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("providers: []\n")
    program = (
        "import sys; sys.modules['yaml'] = None; from proxy.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", program, "import", "oauth2-proxy", str(tmp_path / "a.yaml")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert "install nightporter[import]" in done.stderr


def test_toml_needs_no_pyyaml(tmp_path: Path) -> None:
    (tmp_path / "a.cfg").write_text('client_id = "a"\n')
    program = (
        "import sys; sys.modules['yaml'] = None; from proxy.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", program, "import", "oauth2-proxy", str(tmp_path / "a.cfg")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert 'client_id = "a"' in done.stdout


@pytest.mark.parametrize("name", ["kubernetes", "compose"])
def test_json_needs_no_pyyaml_and_says_the_same(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`kubectl get -o json`, for the image."""
    import yaml

    source = (HERE / f"{name}.yaml").read_text()
    documents = list(yaml.safe_load_all(source))
    one = documents[0] if len(documents) == 1 else {"apiVersion": "v1", "kind": "List", "items": documents}
    (tmp_path / f"{name}.json").write_text(json.dumps(one))
    monkeypatch.setitem(sys.modules, "yaml", None)
    assert run("oauth2-proxy", str(tmp_path / f"{name}.json"))[1] == (HERE / f"{name}.toml").read_text()


# -- YAML --


def alpha(tmp_path: Path, text: str) -> tuple[int, str, str]:
    (tmp_path / "alpha.yaml").write_text(text)
    return run("oauth2-proxy", str(tmp_path / "alpha.yaml"))


def test_an_unknown_field_of_alpha_configuration_is_named(tmp_path: Path) -> None:
    text = f"providers:\n  - clientID: a\n    oidcConfig:\n      newField: {CANARY}\nsurprise: 1\n"
    _, out, err = alpha(tmp_path, text)
    assert "providers[0].oidcConfig.newField: no field of alpha configuration" in err
    assert "surprise: no part of alpha configuration" in err
    assert CANARY not in out + err


def test_variables_in_alpha_configuration_are_filled_in_but_no_secret(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("THE_ID", "portal")
    monkeypatch.setenv("THE_SECRET", CANARY)
    text = (
        "providers:\n  - provider: oidc\n    clientID: ${THE_ID}\n    clientSecret: ${THE_SECRET}\n"
        "    scope: openid ${MORE:-email}\n    oidcConfig:\n      issuerURL: https://${NOT_SET}/\n"
    )
    _, out, err = alpha(tmp_path, text)
    assert 'client_id = "portal"' in out
    assert 'scopes = ["openid", "email"]' in out
    assert "the value of the variable THE_SECRET" in out
    assert "the variable NOT_SET is not set here" in err
    assert CANARY not in out + err


def test_headers_of_alpha_configuration(tmp_path: Path) -> None:
    text = """
injectRequestHeaders:
  - {name: X-User, values: [{claimSource: {claim: user}}]}
  - {name: X-Forwarded-Access-Token, values: [{claim: access_token}]}
  - {name: X-Token, values: [{claim: id_token}]}
  - {name: Authorization, values: [{claim: user, prefix: "Basic ", basicAuthPassword: {value: c2VjcmV0}}]}
  - {name: X-Both, preserveRequestValue: true, values: [{claim: email}, {claim: user}]}
  - {name: X-Fixed, values: [{value: CANARY}]}
""".replace("CANARY", CANARY)
    _, out, err = alpha(tmp_path, text)
    assert 'X-User = "sub"' in out
    assert 'X-Both = "email"' in out
    assert "pass_access_token = true" in out
    for name in ("X-Token", "Authorization", "X-Fixed"):
        assert f"{name} =" not in out
        assert f": {name}: " in err
    assert "X-Both: several values" in err
    assert CANARY not in out + err


def test_a_manifest_brings_its_files_variables_and_arguments(tmp_path: Path) -> None:
    (tmp_path / "all.yaml").write_text(f"""
apiVersion: v1
kind: List
items:
  - apiVersion: v1
    kind: ConfigMap
    data:
      oauth2_proxy.cfg: |
        email_domains = ["*"]
        upstreams = ["http://app:80"]
      notes.txt: "{CANARY}"
  - apiVersion: apps/v1
    kind: Deployment
    spec:
      template:
        spec:
          containers:
            - {{name: app, image: registry.example.com/app, args: [--client-id=wrong]}}
            - name: auth
              image: quay.io/oauth2-proxy/oauth2-proxy:v7.15.3
              args: ["--config=/etc/oauth2_proxy.cfg", "--redirect-url=https://$(HOST)/oauth2/callback"]
              envFrom: [{{secretRef: {{name: more}}}}]
              env:
                - {{name: HOST, value: app.example.com}}
                - name: OAUTH2_PROXY_CLIENT_SECRET
                  valueFrom: {{secretKeyRef: {{name: auth, key: secret}}}}
                - name: OAUTH2_PROXY_CLIENT_ID
                  valueFrom: {{configMapKeyRef: {{name: auth, key: id}}}}
""")
    _, out, err = run("oauth2-proxy", str(tmp_path / "all.yaml"))
    assert 'allow = ["everyone"]' in out
    assert 'public_url = "https://app.example.com"' in out
    assert "the key secret of the Secret auth into this file, or into NIGHTPORTER_CLIENT_SECRET" in out
    assert "wrong" not in out
    assert "envFrom: variables that stand elsewhere" in err
    assert "OAUTH2_PROXY_CLIENT_ID: a value that stands elsewhere" in err
    assert "not here: name the file" not in err
    assert CANARY not in out + err


def test_several_replicas_share_no_sqlite_file(tmp_path: Path) -> None:
    (tmp_path / "d.yaml").write_text("""
apiVersion: apps/v1
kind: Deployment
spec:
  replicas: 3
  template: {spec: {containers: [{image: quay.io/oauth2-proxy/oauth2-proxy, args: [--client-id=a]}]}}
""")
    assert "replicas: 3 of them share no SQLite file" in run("oauth2-proxy", str(tmp_path / "d.yaml"))[2]


def test_a_domain_that_is_the_one_host_is_no_news() -> None:
    here = "--redirect-url=https://app.example.com/oauth2/callback"
    for name in ("cookie-domain", "whitelist-domain"):
        assert f"--{name}" not in run("oauth2-proxy", "--args", f"{here} --{name}=app.example.com")[2]
        assert f"--{name}" in run("oauth2-proxy", "--args", f"{here} --{name}=.example.com")[2]


# -- secrets --


@pytest.mark.parametrize("name", [flag.name for flag in FLAGS.values() if flag.secret])
@pytest.mark.parametrize(
    "value", [CANARY, f"redis://u:{CANARY}@host:1/0", f"http://{CANARY}@host/", f"{CANARY}\n# x"]
)
def test_no_secret_flag_is_repeated_whatever_stands_in_it(name: str, value: str, tmp_path: Path) -> None:
    flag = FLAGS[name]
    given = from_arguments([f"--{name}={value}"])
    assert CANARY not in repr(given)
    (tmp_path / "a.cfg").write_text(
        'session_store_type = "redis"\nredis_use_sentinel = true\n'
        + f"{flag.config} = {[value] if flag.kind == 'list' else value!r}\n".replace("'", '"')
        if flag.name != "redis-connection-url"
        else f'session_store_type = "redis"\n{flag.config} = "{value}"\n'.replace("\n#", "\\n#")
    )
    _, out, err = run("oauth2-proxy", str(tmp_path / "a.cfg"))
    assert CANARY not in out + err


def test_credentials_in_any_address_are_cut_out() -> None:
    arguments = f"--upstream=http://u:{CANARY}@app:80/ --redirect-url=https://u:{CANARY}@app.example.com/oauth2/callback"
    _, out, err = run("oauth2-proxy", "--args", arguments)
    assert CANARY not in out + err


def test_what_is_kept_elsewhere_is_a_text_that_knows_it() -> None:
    assert isinstance(Elsewhere("x"), str)
