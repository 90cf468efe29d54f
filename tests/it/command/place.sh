# A target as an operator may write one: sh place.sh STATE, a request on stdin. STATE/held has the id and the secret. While there is
# STATE/hold, a push waits before it writes; STATE/pid is its process. While there is STATE/ids-only, the secret is not shown.
# STATE/mishap is one of the next push: `lost` writes and does not say so, `liar` says so and does not write, `refuse` refuses.
set -u
state=$1
IFS= read -r line
field() { printf '%s\n' "$line" | sed -n "s/.*\"$1\":\"\([^\"]*\)\".*/\1/p"; }
act=$(field do)
echo "$act" >>"$state/log"
env >>"$state/seen"; echo "$@" >>"$state/seen"
reading() {
    [ -e "$state/held" ] || { echo '"nothing"'; return; }
    { read -r id; read -r secret; } <"$state/held"
    if [ -e "$state/ids-only" ]; then echo "{\"id\":\"$id\"}"; return; fi
    echo "{\"id\":\"$id\",\"secret\":\"$secret\"}"
}
case $act in
inspect) printf '{"rekeyd":1,"ok":{"holder":"there/1","reading":%s}}\n' "$(reading)" ;;
read) printf '{"rekeyd":1,"ok":{"reading":%s}}\n' "$(reading)" ;;
push)
    echo $$ >"$state/pid"
    while [ -e "$state/hold" ]; do sleep 0.05; done
    mishap=
    if [ -e "$state/mishap" ]; then mishap=$(cat "$state/mishap"); rm "$state/mishap"; fi
    if [ "$mishap" = refuse ]; then
        echo '{"rekeyd":1,"fault":{"kind":"refused","why":"not this one"}}'; exit
    fi
    if [ "$mishap" = liar ]; then echo '{"rekeyd":1,"ok":{}}'; exit; fi
    printf '%s\n' "$(field id)" "$(field secret)" >"$state/new.$$" && mv "$state/new.$$" "$state/held"
    [ "$mishap" = lost ] && exit 1
    echo '{"rekeyd":1,"ok":{}}'
    ;;
*) echo "no such act: $act" >&2; exit 9 ;;
esac
