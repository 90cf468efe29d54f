# An issuer as an operator may write one, strict and with mishaps on demand: sh keys.sh STATE SHAPE, a request on stdin.
# STATE/keys/ID has four lines: active, secret, created, intent. STATE/faults/ACT is a mishap of the next request, STATE/denied/ACT
# takes a right away, and STATE/log has a line for every request.
set -u
state=$1 shape=$2
IFS= read -r line
field() { printf '%s\n' "$line" | sed -n "s/.*\"$1\":\"\([^\"]*\)\".*/\1/p"; }
act=$(field do) id=$(field id) secret=$(field secret) intent=$(field intent)
case $line in '{"rekeyd":1,"do":"'*) ;; *) echo "not a request" >&2; exit 9 ;; esac
echo "$act" >>"$state/log"
env >>"$state/seen"; echo "$@" >>"$state/seen"
now=$(date -u +%Y-%m-%dT%H:%M:%SZ)
file=$state/keys/$id

refuse() { printf '{"rekeyd":1,"fault":{"kind":"refused","reason":"%s","why":"%s"}}\n' "$1" "$2"; exit; }
random() { od -An -N"$1" -tx1 /dev/urandom | tr -d ' \n'; }
write() { printf '%s\n' "$2" "$3" "$4" "$5" >"$state/new.$$" && mv "$state/new.$$" "$state/keys/$1"; }

mishap=
if [ -e "$state/faults/$act" ]; then mishap=$(cat "$state/faults/$act"); rm "$state/faults/$act"; fi
case $mishap in
throttle) echo '{"rekeyd":1,"fault":{"kind":"retry","after_seconds":1,"why":"slow down"}}'; exit ;;
drop) kill -9 $$ ;;
error) echo "something broke" >&2; exit 1 ;;
html) echo '<html><body>Log in</body></html>'; exit ;;
redirect) echo '{"rekeyd":2,"ok":{}}'; exit ;;
esac
[ -e "$state/denied/$act" ] && refuse missing-right "the right keys:$act is missing"

answer() {
    case $mishap in
    lost) exit 0 ;;
    error-after) exit 1 ;;
    garbage-after) echo 'HTTP/1.1 503'; exit 0 ;;
    esac
    printf '{"rekeyd":1,"ok":%s}\n' "$1"
}

# The four lines of a key.
look() { { read -r k_active; read -r k_secret; read -r k_created; read -r k_intent; } <"$1"; }

case $act in
identity) answer '{"account":"sh/1"}' ;;
list)
    keys=
    for one in "$state"/keys/*; do
        [ -e "$one" ] || continue
        look "$one"
        label=${k_intent:+",\"intent\":\"$k_intent\""}
        keys="$keys,{\"id\":\"${one##*/}\",\"active\":$k_active,\"created\":\"$k_created\"$label}"
    done
    answer "{\"keys\":[${keys#,}],\"date\":\"$now\"}"
    ;;
mint)
    if [ "$shape" = client-named ]; then id=KEY-$intent; else id=KEY$(random 6); fi
    secret=$(random 16)
    write "$id" true "$secret" "$now" "$intent"
    answer "{\"key\":{\"id\":\"$id\",\"secret\":\"$secret\"},\"created\":\"$now\"}"
    ;;
probe)
    if [ ! -e "$file" ]; then answer '{"probe":"not-yet","why":"no such key"}'; exit; fi
    look "$file"
    if [ "$k_active" = true ] && [ "$k_secret" = "$secret" ]; then answer '{"probe":"works"}'; exit; fi
    answer "{\"probe\":\"wrong\",\"why\":\"$secret is not it\"}"
    ;;
last_use) answer '{"last_use":"never"}' ;;
disable | enable)
    [ -e "$file" ] || refuse not-found "there is no key $id"
    look "$file"
    if [ "$act" = enable ]; then active=true; else active=false; fi
    write "$id" "$active" "$k_secret" "$k_created" "$k_intent"
    answer '{}'
    ;;
delete) rm -f "$file"; answer '{}' ;;
*) echo "no such act: $act" >&2; exit 9 ;;
esac
