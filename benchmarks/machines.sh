#!/usr/bin/env bash
# Try the kit on a fresh machine: rows of results/machines.csv. Needs Debian, root, debootstrap and 20 GB in FOLDER.
#
#     benchmarks/machines.sh FOLDER RELEASE      bookworm has Python 3.11, trixie 3.13, sid what is newest
#
# The machine is an empty Debian with python3, make and git, and is entered by chroot. It has no variables but PATH, HOME
# and those of pip and of proxies. What pip fetched is kept in FOLDER/cache for the next machine; the rest is removed.
set -euo pipefail
project=$(realpath "$(dirname "$0")/..")
out=$(realpath "$1") release=$2 root=$(realpath "$1")/$2 log=$(realpath "$1")/$2.log
tests="tests/test_metrics.py tests/test_data.py tests/test_lists.py tests/test_network.py tests/test_losses.py tests/test_settings.py tests/test_project.py"
mapfile -t handed < <(env | grep -E '^(PIP_CERT|SSL_CERT_FILE|[a-z]+_proxy)=' || true)

enter() {  # enter WHO PLACE HOME HOW COMMAND, in namespaces of its own
    mount -t proc proc "$root/proc"
    mount --rbind /dev "$root/dev"
    mount -t tmpfs tmpfs "$root/dev/shm"
    mount --bind "$out/cache" "$root/cache"
    ip link set lo up
    if [[ $4 == *read-only* ]]; then
        mount --bind "$root$2" "$root$2"
        mount -o remount,bind,ro "$root$2"
    fi
    exec chroot --userspec="$1" "$root" env -i "${@:6}" PATH=/usr/bin:/bin PIP_CACHE_DIR=/cache ${3:+"HOME=$3"} \
        bash -c 'cd "$0" && eval "$1"' "$2" "$5"
}
export root out
export -f enter

try() {  # try WHO PLACE HOME HOW COMMAND: a row of the table
    local start=$SECONDS network="" said=passed
    [[ $4 == *"no network"* ]] && network=--net
    echo "== $*" | tee -a "$log"
    unshare --mount $network --pid --fork --kill-child bash -c 'enter "$@"' - "$@" "${handed[@]}" >>"$log" 2>&1 ||
        said="failed: $(tail -n 1 "$log" | tr '",' "' ")"
    printf '%s,%s,%s,"%s","%s","%s",%s,%d\n' "$release" "$python" "$1" "$2" "$4" "${5//\"/\'}" "$said" $((SECONDS - start)) |
        tee -a "$project/results/machines.csv"
}

place() {  # place WHO FOLDER: a clone of the project there
    mkdir -p "$root$(dirname "$2")"
    git clone --quiet "$project" "$root$2"
    chroot "$root" chown -R "$1" "$2"
}

debootstrap --variant=minbase --include=python3,python3-venv,make,git,ca-certificates "$release" "$root" >"$log"
cp /etc/resolv.conf /etc/hosts "$root/etc/"
cp /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/"
mkdir -p "$out/cache" "$root/cache"
chmod 1777 "$out/cache"
chroot "$root" useradd --create-home anna
python=$(chroot "$root" python3 -c 'import platform; print(platform.python_version())')
[[ -s $project/results/machines.csv ]] ||
    echo "machine,Python,user,folder,how,command,what came out,seconds" >"$project/results/machines.csv"

home=/home/anna kit="/home/anna/Übung mit Hash"
place anna "$kit"
try anna "$kit" $home "with network" 'make run ARGS="--only 00 01"'
try anna "$kit" $home "no network" 'make run ARGS="--only 00"'
try anna "$kit" "" "no network, no HOME" 'make run ARGS="--only 00"'
try anna "$kit" /nowhere "no network, HOME that does not exist" 'make run ARGS="--only 00"'
try anna "$kit" $home "no network, read-only" 'make run ARGS="--only 00 -p runs_dir /tmp/runs"'
try root "$kit" /root "no network, another owner" 'make run ARGS="--only 00"'
try anna "$kit" $home "with network" "make test ARGS='$tests'"
try anna "$kit" /nowhere "no network, HOME that does not exist" "make test ARGS='$tests'"
rm -rf --one-file-system "$root"
