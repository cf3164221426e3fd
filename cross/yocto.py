"""Parses, fetches, unpacks and installs the Yocto recipe with BitBake's own library, from PyPI's bitbake-setup.

    yocto.py LAYER URL MIRROR WORK TARGET LIBC INIT

The release's files are taken from the folder MIRROR in URL's stead, as a site's own mirror would have them.
OpenEmbedded's classes cannot be had here: what the recipe inherits of them is empty, so packaging is not tried. Prints
the folder that do_install has filled, or why BitBake refuses.
"""
import os
import re
import sys
import types

for name in ("hashserv", "hashserv.client"):  # the package lacks them, and nothing here calls them
    sys.modules[name] = types.ModuleType(name)

import bb
import bb.build
import bb.cache
import bb.cookerdata
import bb.fetch2
import bb.parse
import bb.siggen
import bb.utils

layer, url, mirror, work, target, libc, init = sys.argv[1:]
arch = {"amd64": "x86_64", "arm64": "aarch64", "armv7": "arm", "armv6": "arm", "riscv64": "riscv64"}[target]
tune = {"armv7": "arm armv7a vfp callconvention-hard", "armv6": "arm armv6 vfp callconvention-hard"}.get(target, "")

BITBAKE_CONF = f"""
TARGET_ARCH = "{arch}"
TUNE_FEATURES = "{tune}"
DISTRO_FEATURES = "{init}"
PICKET_RELEASES = "{url}"
PREMIRRORS = "https://.*/.* file://{mirror}/"
OVERRIDES = "${{@d.getVar('TARGET_ARCH').replace('_', '-')}}:libc-{libc}"
PN = "${{@bb.parse.vars_from_file(d.getVar('FILE', False), d)[0] or 'defaultpkgname'}}"
PV = "${{@bb.parse.vars_from_file(d.getVar('FILE', False), d)[1] or '1.0'}}"
PF = "${{PN}}-${{PV}}"
TOPDIR = "{work}"
TMPDIR = "${{TOPDIR}}/tmp"
WORKDIR = "${{TMPDIR}}/${{PN}}"
DL_DIR = "${{TOPDIR}}/downloads"
D = "${{WORKDIR}}/image"
T = "${{WORKDIR}}/temp"
B = "${{S}}"
CACHE = "${{TOPDIR}}/cache"
PERSISTENT_DIR = "${{TOPDIR}}/cache"
FILE_DIRNAME = "${{@os.path.dirname(d.getVar('FILE', False))}}"
FILESPATH = "${{FILE_DIRNAME}}/files"
bindir = "/usr/bin"
docdir = "/usr/share/doc"
sysconfdir = "/etc"
localstatedir = "/var"
nonarch_libdir = "/usr/lib"
systemd_system_unitdir = "/usr/lib/systemd/system"
BB_NO_NETWORK = "1"
BB_SIGNATURE_HANDLER = "noop"
PATH = "{os.environ['PATH']}"
"""
# What every recipe has of OpenEmbedded's base.bbclass.
BASE = """
do_fetch[dirs] = "${DL_DIR}"
addtask fetch
python do_fetch() {
    bb.fetch2.Fetch(d.getVar("SRC_URI").split(), d).download()
}
addtask unpack after do_fetch
do_unpack[dirs] = "${WORKDIR}"
python do_unpack() {
    bb.fetch2.Fetch(d.getVar("SRC_URI").split(), d).unpack(d.getVar("WORKDIR"))
}
addtask configure after do_unpack
addtask compile after do_configure
addtask install after do_compile
do_install[dirs] = "${B}"
EXPORT_FUNCTIONS do_fetch do_unpack
"""


def write(path, text):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w", encoding="utf-8") as f:
        f.write(text)


meta = f"{work}/meta"
write(f"{meta}/conf/bitbake.conf", BITBAKE_CONF)
write(f"{meta}/classes/base.bbclass", BASE)
for name in ("systemd", "update-rc.d", "useradd"):
    write(f"{meta}/classes/{name}.bbclass", "")
write(f"{work}/conf/bblayers.conf", f'BBPATH = "{meta}"\nBBFILES = ""\nBBLAYERS = "{meta} {layer}"\n')
write(f"{meta}/conf/layer.conf", 'BBFILE_COLLECTIONS += "core"\nBBFILE_PATTERN_core = "^${LAYERDIR}/"\n'
      'LAYERSERIES_CORENAMES = "scarthgap"\n')
os.chdir(work)

builder = bb.cookerdata.CookerDataBuilder(bb.cookerdata.CookerConfiguration(), False)
builder.parseBaseConfiguration()
bb.parse.init_parser(builder.data)
recipes = [f for f in os.listdir(f"{layer}/recipes-picket/picket") if f.endswith(".bb")]
assert len(recipes) == 1, recipes
datastores = builder.parseRecipeVariants(f"{layer}/recipes-picket/picket/{recipes[0]}", [], mc="", layername="picket")
d = datastores[""]
skipped = d.getVar("__SKIPPED")
if skipped:
    print("skipped:", skipped)
    sys.exit(3)
assert ("LGPL-2.1-or-later" in d.getVar("LICENSE")) == (libc == "musl" or target in ("armv7", "riscv64")), d.getVar("LICENSE")
missing = [v for v in ("SUMMARY", "LICENSE", "LIC_FILES_CHKSUM") if not d.getVar(v)]
assert not missing, missing
assert re.match(d.getVar("COMPATIBLE_HOST"), f"{arch}-poky-linux"), "COMPATIBLE_HOST"
for task in ("do_fetch", "do_unpack", "do_install"):
    try:
        bb.build.exec_func(task, d)
    except bb.BBHandledException as e:
        print(f"{task}: {e}")
        sys.exit(4)
for part in d.getVar("LIC_FILES_CHKSUM").split():
    _, _, path, _, _, parameters = bb.fetch2.decodeurl(part)
    got = bb.utils.md5_file(os.path.join(d.getVar("S"), path))
    assert got == parameters["md5"], f"{path} has md5 {got}"
print(d.getVar("D"))
