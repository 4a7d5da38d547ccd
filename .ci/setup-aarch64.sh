#!/usr/bin/env bash
# Installs what compiles for aarch64-unknown-linux-gnu, with clippy, and runs the result under QEMU. Needs Debian 12 for amd64 and root.
# Prints its directory: `cargo.toml` holds settings for cargo, `usr/bin/cargo-clippy` is clippy. A second run does nothing.
#
# It uses Debian's compiler, because the standard library for AArch64 may not be available from rustup here. It unpacks the compilers
# and does not install them, so that the path and the architectures of dpkg stay as they are.
set -euo pipefail
sdk=${AARCH64_SDK:-$HOME/.cache/glm-aarch64}
target=aarch64-unknown-linux-gnu
# Raise this number when this script changes what it makes.
recipe=1

[ "$(dpkg --print-architecture)" = amd64 ] || { echo "$0: needs Debian for amd64" >&2; exit 1; }

packages="gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user-static patchelf
    libz3-4 libedit2 libxml2 libffi8 libzstd1 zlib1g libstdc++6"
missing=
for package in $packages; do
    case $(dpkg-query -W -f '${db:Status-Status} ' "$package" 2>/dev/null) in
        installed*) ;;
        *) missing+=" $package" ;;
    esac
done
if [ -n "$missing" ]; then
    export DEBIAN_FRONTEND=noninteractive
    apt-get -qq update >&2
    # shellcheck disable=SC2086
    apt-get -qq -y --no-install-recommends --no-upgrade -o Dpkg::Use-Pty=0 install $missing >&2
fi

if [ "$(cat "$sdk/.recipe" 2>/dev/null)" != "$recipe" ] || ! "$sdk/usr/bin/rustc" -V >/dev/null 2>&1; then
    tmp=$sdk.tmp.$$
    trap 'rm -rf "$tmp"' EXIT
    mkdir -p "$tmp"/apt/{lists/partial,cache/archives/partial,debs} "$tmp/root"
    # A separate apt configuration that knows both architectures.
    sources() {
        apt-get indextargets --format '$(REPO_URI) $(RELEASE)' 'Created-By: Packages' |
            sed -n 's, bookworm-security$,,p' | head -n1
    }
    mirror=$(sources)
    [ -n "$mirror" ] || { apt-get -qq update >&2; mirror=$(sources); }
    key=/usr/share/keyrings/debian-archive-keyring.gpg
    echo "deb [signed-by=$key] ${mirror:?no bookworm-security in the sources of apt} bookworm-security main" \
        >"$tmp/apt/sources.list"
    cat >"$tmp/apt/apt.conf" <<CONF
Dir::Etc::SourceList "$tmp/apt/sources.list";
Dir::Etc::SourceParts "/dev/null";
Dir::State::Lists "$tmp/apt/lists";
Dir::Cache "$tmp/apt/cache";
APT::Architectures { "amd64"; "arm64"; };
APT::Sandbox::User "root";
Acquire::Languages "none";
Acquire::IndexTargets::deb::DEP-11::DefaultEnabled "false";
Acquire::IndexTargets::deb::Contents-deb::DefaultEnabled "false";
CONF
    export APT_CONFIG=$tmp/apt/apt.conf
    apt-get -qq update >&2
    # The newest version that both architectures have: a compiler refuses the library of another.
    versions() { apt-cache madison "$1" | awk -F'|' '{gsub(/ /,"",$2); print $2}' | sort -u; }
    newest=
    for version in $(comm -12 <(versions rustc-web:amd64) <(versions libstd-rust-web-dev:arm64)); do
        if [ -z "$newest" ] || dpkg --compare-versions "$version" gt "$newest"; then newest=$version; fi
    done
    : "${newest:?no version of rustc-web that amd64 and arm64 share}"
    dependency() { apt-cache show "$1" | sed -n 's/^Depends: //p' | head -n1 | grep -oE "$2" | head -n1; }
    library=$(dependency "libstd-rust-web-dev:amd64=$newest" 'libstd-rust-web-[0-9.]+')
    llvm=$(dependency "$library:amd64=$newest" 'libllvm[0-9]+')
    (cd "$tmp/apt/debs" && apt-get -qq download \
        {rustc-web,rust-web-clippy,libstd-rust-web-dev,"$library"}:amd64="$newest" \
        libstd-rust-web-dev:arm64="$newest" "$llvm:amd64" >&2)
    unset APT_CONFIG
    for deb in "$tmp"/apt/debs/*.deb; do dpkg -x "$deb" "$tmp/root"; done
    rm -rf "$tmp"/root/usr/{share,libexec}
    # Their libraries are in the same tree.
    for program in rustc rustdoc cargo-clippy clippy-driver; do
        patchelf --force-rpath --set-rpath '$ORIGIN/../lib/x86_64-linux-gnu' "$tmp/root/usr/bin/$program"
    done
    cat >"$tmp/root/cargo.toml" <<TOML
[build]
rustc = "$sdk/usr/bin/rustc"
rustdoc = "$sdk/usr/bin/rustdoc"
target = "$target"

[target.$target]
linker = "aarch64-linux-gnu-gcc"
runner = "qemu-aarch64-static"

[env]
QEMU_LD_PREFIX = "/usr/aarch64-linux-gnu"
TOML
    echo "$recipe" >"$tmp/root/.recipe"
    rm -rf "$sdk"
    mv "$tmp/root" "$sdk"
fi
echo "$sdk"
