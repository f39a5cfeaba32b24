"""Checks manifests without a cluster: readable YAML, known kinds, their schemas, and nothing that dangles."""

import posixpath
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from initializer.manifests.documents import DocumentError, read_documents
from initializer.manifests.schema import validator_of
from initializer.manifests.sentences import place_and_sentence, shortened

__all__ = ["MANIFEST_FOLDERS", "Problem", "check_manifests"]

MANIFEST_FOLDERS = ("deploy/", "projects/")
"""Where generated manifests stand. Every YAML document there must be of a known kind."""

KUSTOMIZATION_FILE = "kustomization.yaml"
KUSTOMIZATION_API = "kustomize.config.k8s.io/v1beta1"
MAX_PROBLEMS_PER_DOCUMENT = 20
NAME_AND_KIND = ("apiVersion", "kind")


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One thing that is wrong with one file. `str()` is a sentence for the person who reads it."""

    path: str
    document: int = 0  # 1, 2, 3, … within the file; 0 where it is the file as a whole
    location: str = ""  # such as `spec.ports[0].name`; empty where it is the document as a whole
    message: str

    def __str__(self) -> str:
        where = self.path if self.document <= 1 else f"{self.path}, document {self.document}"
        told = f"{where}: {self.location} {self.message}" if self.location else f"{where} {self.message}"
        # Keys and values come from outside: they must not add lines of their own.
        return "".join(character if character.isprintable() else "\ufffd" for character in told)


def check_manifests(files: Mapping[str, str], *, folders: Iterable[str] = MANIFEST_FOLDERS) -> list[Problem]:
    """Everything wrong with the YAML files among `files` (path in the repository -> text), in their order.

    Under `folders` every document must be of a kind that has a schema, agree with it and, if it is a
    kustomization, name only files that are there. YAML elsewhere (a CI workflow) need only be readable.
    """
    folders = tuple(folders)
    documents: dict[str, list[Any]] = {}
    problems: list[Problem] = []
    for path in sorted(path for path in files if path.endswith((".yaml", ".yml"))):
        try:
            documents[path] = read_documents(files[path])
        except DocumentError as error:
            problems.append(Problem(path=path, message=str(error)))
    manifests = {path: read for path, read in documents.items() if path.startswith(folders)}
    patches = {
        path for file, read in manifests.items() for _, path in _named_files(file, read, only=("patches",))
    }
    for path, read in manifests.items():
        if not read:
            problems.append(Problem(path=path, message="holds no document"))
        for number, document in enumerate(read, start=1):
            problems.extend(_document_problems(path, number, document, is_patch=path in patches))
        for location, named in _named_files(path, read):
            if not _exists(named, files):
                problems.append(
                    Problem(
                        path=path,
                        document=1,
                        location=location,
                        message=f"names {shortened(named)}, which is not there",
                    )
                )
    return problems


def _document_problems(path: str, number: int, document: Any, *, is_patch: bool) -> Iterator[Problem]:
    """A patch is a part of an object: what it leaves out is no problem."""
    if not isinstance(document, dict):
        yield Problem(path=path, document=number, message="holds a document that is no object")
        return
    missing = [key for key in NAME_AND_KIND if not isinstance(document.get(key), str)]
    if missing:
        yield Problem(path=path, document=number, message=f"has no {' and no '.join(missing)}")
        return
    api_version, kind = document["apiVersion"], document["kind"]
    validator = validator_of(api_version, kind)
    if validator is None:
        told = f"{shortened(kind)} of {shortened(api_version)}"
        yield Problem(path=path, document=number, message=f"is of an unknown kind: {told}")
        return
    if api_version != KUSTOMIZATION_API and not _has_name(document):
        yield Problem(path=path, document=number, location="metadata", message="lacks name")
    errors = (e for e in validator.iter_errors(document) if not (is_patch and e.validator == "required"))
    found = sorted({place_and_sentence(error) for error in errors})
    for location, message in found[:MAX_PROBLEMS_PER_DOCUMENT]:
        yield Problem(path=path, document=number, location=location, message=message)
    if len(found) > MAX_PROBLEMS_PER_DOCUMENT:
        left = len(found) - MAX_PROBLEMS_PER_DOCUMENT
        yield Problem(path=path, document=number, message=f"has {left} more problems")


def _has_name(document: dict[str, Any]) -> bool:
    metadata = document.get("metadata")
    return isinstance(metadata, dict) and bool(metadata.get("name"))


def _named_files(
    path: str, documents: list[Any], *, only: tuple[str, ...] = ("resources", "components", "patches")
) -> Iterator[tuple[str, str]]:
    """Each (location, path in the repository) of a file that the kustomization at `path` names."""
    if posixpath.basename(path) != KUSTOMIZATION_FILE or not documents or not isinstance(documents[0], dict):
        return
    folder = posixpath.dirname(path)
    for field in only:
        entries = documents[0].get(field)
        for index, entry in enumerate(entries if isinstance(entries, list) else []):
            named = entry.get("path") if isinstance(entry, dict) else entry
            if isinstance(named, str):
                yield f"{field}[{index}]", posixpath.normpath(posixpath.join(folder, named))


def _exists(path: str, files: Mapping[str, str]) -> bool:
    return path in files or posixpath.join(path, KUSTOMIZATION_FILE) in files
