#!/usr/bin/env python3
"""Rewrites meta-updater/recipes-updater/updater/updater-modules.inc: the files that BitBake's fetcher downloads so that do_compile needs no network,
each with its sha256, and the licences of the modules. Run it after a change of go.mod; --check compares. Go checks every module with go.sum here,
and once more when BitBake compiles."""
import hashlib, json, os, re, subprocess, sys, tempfile, zipfile
from pathlib import Path

here = Path(__file__).resolve().parent
inc = here / "meta-updater/recipes-updater/updater/updater-modules.inc"
programs = ["./cmd/updater", "./cmd/mkinitramfs", "github.com/u-root/u-root/cmds/core/init"]
go = lambda env, *args: subprocess.run(["go", *args], cwd=here.parent.parent, env=env, check=True, text=True, stdout=subprocess.PIPE).stdout

# The words that identify a licence text: the first entry whose words are all found names it.
known = [
    ("MPL-2.0", ["Mozilla Public License", "2.0"]),
    ("Apache-2.0", ["Apache License", "Version 2.0"]),
    ("BSD-3-Clause", ["Redistribution and use in source and binary forms", "Neither the name"]),
    ("BSD-2-Clause", ["Redistribution and use in source and binary forms"]),
    ("MIT", ["Permission is hereby granted, free of charge"]),
    ("CC0-1.0", ["CC0 1.0 Universal"]),
]


def licence(name, text):
    """SPDX identifiers of all licences in one text."""
    text = " ".join(text.split())
    found = [id for id, words in known if all(w in text for w in words)]
    if "BSD-3-Clause" in found:
        found.remove("BSD-2-Clause")
    if not found:
        sys.exit(f"{name}: unknown licence; add its words to the table in {__file__}")
    return found


def linked(env):
    """Paths of the modules that the programs are linked of, on any architecture."""
    modules = set()
    for arch in "amd64", "arm64", "arm", "riscv64":
        out = go(env | {"GOARCH": arch}, "list", "-deps", "-f", "{{with .Module}}{{if not .Main}}{{.Path}}@{{.Version}}{{end}}{{end}}", *programs)
        modules |= set(out.split())
    return modules


with tempfile.TemporaryDirectory() as tmp:
    proxy = f"file://{go(os.environ, 'env', 'GOMODCACHE').strip()}/cache/download,{go(os.environ, 'env', 'GOPROXY').strip()}"
    env = os.environ | {"GOMODCACHE": tmp, "GOPROXY": proxy, "GOFLAGS": "-modcacherw", "GOOS": "linux", "CGO_ENABLED": "0", "GOTOOLCHAIN": "local"}
    modules = linked(env)
    cache, sums, files, licences = Path(tmp, "cache/download"), [], [], {"Apache-2.0"}
    for path in sorted(p for p in cache.rglob("@v/*") if p.suffix in (".zip", ".mod")):
        name, data = str(path.relative_to(cache)), path.read_bytes()
        sums.append(f"{name}={hashlib.sha256(data).hexdigest()}")
        module = re.sub("!([a-z])", lambda m: m[1].upper(), name.replace("/@v/", "@")[: -len(".zip")])
        if path.suffix != ".zip" or module not in modules:
            continue
        with zipfile.ZipFile(path) as z:
            texts = [n for n in z.namelist() if re.fullmatch(r"(?i)(licen[cs]e|copying|notice|patents)[^/]*", n[len(module) + 1 :])]
            if not texts:
                sys.exit(f"{module}: no licence in its zip")
            for n in sorted(texts):
                data = z.read(n)
                ids = licence(n, data.decode()) if not re.search(r"(?i)/(notice|patents)", n) else []
                licences.update(ids)
                files.append(f"file://${{UPDATER_LICENSES}}/{n};md5={hashlib.md5(data).hexdigest()}" + (f";spdx={'+&+'.join(ids)}" if ids else ""))

lines = ["# Made by contrib/yocto/update-modules.py of go.mod and go.sum: do not edit."]
lines += [f'UPDATER_LICENSE = "{" ".join(sorted(licences))}"', 'LIC_FILES_CHKSUM += "\\'] + [f"    {f} \\" for f in files] + ['"']
lines += ['UPDATER_MODULES = "\\'] + [f"    {s} \\" for s in sums] + ['"', ""]
text = "\n".join(lines)
if sys.argv[1:] == ["--check"]:
    sys.exit(0 if inc.read_text() == text else f"{inc.name} is not that of go.mod: run contrib/yocto/update-modules.py")
inc.write_text(text)
print(f"{inc.name}: {len(sums)} files, {len(files)} licences of {len(modules)} modules")
