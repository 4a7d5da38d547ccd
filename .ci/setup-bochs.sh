#!/usr/bin/env bash
# Installs Bochs, which runs a statically linked test program on an emulated CPU with AVX-512 or AVX-VNNI; QEMU has neither. Needs
# Debian 12 for amd64 and root. Bochs comes from a later Debian and is unpacked into a directory of its own. It boots Debian's kernel for
# virtual machines with the program as the only content, in about 20 s. Prints the directory. A second run does nothing.
#
#   BOCHS_ENV="NAME=VALUE ..." DIRECTORY/bin/bochs-test MODEL PROGRAM [ARGUMENT...]      exit status: the program's
set -euo pipefail
sdk=${BOCHS_SDK:-$HOME/.cache/glm-bochs}
# Raise this number when this script changes what it makes.
recipe=1
say() { echo "$*" >&2; }

pkgs="xorriso cpio isolinux syslinux-common"
missing=
for p in $pkgs; do
    case $(dpkg-query -W -f '${db:Status-Status}' "$p" 2>/dev/null) in installed*) ;; *) missing="$missing $p" ;; esac
done
if [ -n "$missing" ]; then
    say "apt-get install$missing"
    export DEBIAN_FRONTEND=noninteractive
    apt-get -qq update >&2
    # shellcheck disable=SC2086
    apt-get -qq -y --no-install-recommends --no-upgrade -o Dpkg::Use-Pty=0 install $missing >&2
fi

if [ "$(cat "$sdk/.recipe" 2>/dev/null)" != "$recipe" ]; then
    tmp=$sdk.tmp.$$
    trap 'rm -rf "$tmp"' EXIT
    mkdir -p "$tmp"/apt/{lists/partial,cache/archives/partial,state} "$tmp"/root/bin "$tmp"/kern
    # trixie, from the mirror that this system uses for bookworm
    mirror=$(apt-get indextargets --format '$(REPO_URI) $(RELEASE)' 'Created-By: Packages' 2>/dev/null | sed -n 's, bookworm$,,p' | head -n1)
    echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] ${mirror:?no bookworm among the apt sources; run apt-get update first} trixie main" >"$tmp/apt/sources.list"
    cat >"$tmp/apt/apt.conf" <<CONF
Dir::Etc::SourceList "$tmp/apt/sources.list";
Dir::Etc::SourceParts "/dev/null";
Dir::State "$tmp/apt/state";
Dir::State::status "/dev/null";
Dir::State::Lists "$tmp/apt/lists";
Dir::Cache "$tmp/apt/cache";
APT::Sandbox::User "root";
APT::Get::Download-Only "true";
APT::Install-Recommends "false";
Acquire::Languages "none";
Acquire::IndexTargets::deb::DEP-11::DefaultEnabled "false";
CONF
    export APT_CONFIG=$tmp/apt/apt.conf
    apt-get -qq update >&2
    say "downloading Bochs and its libraries"
    apt-get -qq -y install bochs bochs-term >&2   # download only
    for d in "$tmp"/apt/cache/archives/*.deb; do dpkg -x "$d" "$tmp/root"; done
    rm -rf "$tmp"/apt/cache/archives/*.deb
    unset APT_CONFIG
    say "downloading the kernel"
    k=$(apt-cache depends linux-image-cloud-amd64 | awk '/Depends: linux-image-[0-9]/ {print $2; exit}')
    (cd "$tmp/kern" && apt-get -qq -o APT::Sandbox::User=root download "$k" && dpkg -x ./*.deb .)
    cp "$tmp"/kern/boot/vmlinuz-* "$tmp/root/vmlinuz"
    # keep only what is needed to run
    find "$tmp/root" -mindepth 1 -maxdepth 1 ! -name usr ! -name bin ! -name vmlinuz -exec rm -rf {} +
    find "$tmp/root/usr" -mindepth 1 -maxdepth 1 ! -name bin ! -name lib ! -name lib64 ! -name share -exec rm -rf {} +
    find "$tmp/root/usr/bin" -mindepth 1 ! -name bochs-bin -delete
    find "$tmp/root/usr/share" -mindepth 1 -maxdepth 1 ! -name bochs ! -name seabios ! -name vgabios -exec rm -rf {} +

    cat >"$tmp/init.rs" <<'RS'
use std::{ffi::CString, fs, fs::OpenOptions, os::fd::AsRawFd, process::{Command, Stdio}};
unsafe extern "C" {
    fn mount(src: *const i8, dst: *const i8, ty: *const i8, flags: u64, data: *const i8) -> i32;
    fn reboot(cmd: i32) -> i32;
    fn dup2(a: i32, b: i32) -> i32;
    fn tcdrain(fd: i32) -> i32;
}
fn main() {
    for (ty, at) in [("proc", "/proc"), ("sysfs", "/sys"), ("devtmpfs", "/dev")] {
        let _ = fs::create_dir_all(at);
        let (t, a) = (CString::new(ty).unwrap(), CString::new(at).unwrap());
        unsafe { mount(t.as_ptr(), a.as_ptr(), t.as_ptr(), 0, std::ptr::null()) };
    }
    let _ = fs::create_dir_all("/tmp");
    let tty = OpenOptions::new().read(true).write(true).open("/dev/ttyS0").unwrap();
    for fd in 0..3 {
        unsafe { dup2(tty.as_raw_fd(), fd) };
    }
    let env = fs::read_to_string("/env").unwrap();
    let args = fs::read_to_string("/args").unwrap();
    println!("\n@@begin");
    let r = Command::new("/test")
        .args(args.split('\0').filter(|a| !a.is_empty()))
        .envs(env.split_whitespace().filter_map(|kv| kv.split_once('=')))
        .stdin(Stdio::null())
        .status();
    println!("\n@@status {}", r.ok().and_then(|s| s.code()).unwrap_or(125));
    println!("@@end");
    unsafe {
        tcdrain(1);
        reboot(0x0123_4567);
    }
}
RS
    rustc --edition 2024 -O -C target-feature=+crt-static -C strip=symbols -o "$tmp/root/init" "$tmp/init.rs"

    cat >"$tmp/root/bin/bochs-test" <<'SH'
#!/usr/bin/env bash
set -euo pipefail
sdk=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
model=$1 bin=$2; shift 2
w=$(mktemp -d); trap 'rm -rf "$w"' EXIT
mkdir -p "$w"/{root,iso/isolinux}
cp "$sdk/init" "$w/root/init"; cp "$bin" "$w/root/test"; strip "$w/root/test" 2>/dev/null || :
chmod +x "$w/root/init" "$w/root/test"
printf '%s' "${BOCHS_ENV:-}" >"$w/root/env"; : >"$w/root/args"
for a in "$@"; do printf '%s\0' "$a" >>"$w/root/args"; done
(cd "$w/root" && find . | cpio -o -H newc --quiet -R 0:0 | gzip -1 >"$w/iso/initrd.gz")
ln -f "$sdk/vmlinuz" "$w/iso/vmlinuz" 2>/dev/null || cp "$sdk/vmlinuz" "$w/iso/vmlinuz"
cp /usr/lib/ISOLINUX/isolinux.bin /usr/lib/syslinux/modules/bios/ldlinux.c32 "$w/iso/isolinux/"
# Found by trial: Linux 6.1 hangs or faults on the newer models with 5-level paging, PKU, UMIP, AMX state and ACPI's SMM.
cat >"$w/iso/isolinux/isolinux.cfg" <<CFG
DEFAULT l
PROMPT 0
TIMEOUT 1
LABEL l
  KERNEL /vmlinuz
  INITRD /initrd.gz
  APPEND console=ttyS0,115200 rdinit=/init loglevel=4 mitigations=off nokaslr panic=-1 reboot=t acpi=off no5lvl nopku clearcpuid=rdpid,fsrm,umip,pcid,invpcid,amx_tile
CFG
xorriso -as mkisofs -quiet -o "$w/boot.iso" -b isolinux/isolinux.bin -c isolinux/boot.cat -no-emul-boot -boot-load-size 4 -boot-info-table "$w/iso" >/dev/null 2>&1
share=$sdk/usr/share/bochs
cat >"$w/bochsrc" <<RC
cpu: model=$model, count=1, ips=100000000, reset_on_triple_fault=0
memory: guest=${BOCHS_MEM:-512}, host=${BOCHS_MEM:-512}
romimage: file=$share/BIOS-bochs-latest
vgaromimage: file=$share/VGABIOS-lgpl-latest
ata0: enabled=1, ioaddr1=0x1f0, ioaddr2=0x3f0, irq=14
ata0-master: type=cdrom, path=$w/boot.iso, status=inserted
boot: cdrom
display_library: term
com1: enabled=1, mode=file, dev=$w/serial.log
log: $w/bochs.log
panic: action=fatal
error: action=report
info: action=ignore
debug: action=ignore
clock: sync=none, time0=utc
RC
lib=$sdk/usr/lib/x86_64-linux-gnu
# The end is a triple fault (reboot=t), on which Bochs stops. Its terminal display wants a terminal: script gives one.
TERM=xterm LTDL_LIBRARY_PATH=$lib/bochs/plugins BXSHARE=$share timeout "${BOCHS_TIMEOUT:-600}" script -qec \
    "$lib/ld-linux-x86-64.so.2 --library-path $lib $sdk/usr/bin/bochs-bin -q -f $w/bochsrc" /dev/null >/dev/null 2>&1 </dev/null || :
[ -f "$w/serial.log" ] && tr -d '\r' <"$w/serial.log" | sed -n '/^@@begin$/,/^@@end$/p' | grep -vE '^@@(begin|end|status .*)$' || :
status=$(tr -d '\r' <"$w/serial.log" 2>/dev/null | sed -n 's/^@@status //p' | tail -n1)
if [ -z "$status" ]; then
    echo "bochs-test: no end seen" >&2; tail -n 20 "$w/serial.log" "$w/bochs.log" >&2 || :; exit 124
fi
exit "$status"
SH
    chmod +x "$tmp/root/bin/bochs-test"
    rm -rf "$sdk"; mv "$tmp/root" "$sdk"
    echo "$recipe" >"$sdk/.recipe"
fi
echo "$sdk"
