# Sourced by what fetches something. `three_times COMMAND…` tries a command three times, with a pause between: a transfer that breaks
# off is tried again by neither pip nor npm, and apt's `update` calls it a success. Its status is that of the last try.
three_times() {
    for tries_left in 2 1 0; do
        status=0
        "$@" || status=$?
        if [ "$status" = 0 ] || [ "$tries_left" = 0 ]; then
            return "$status"
        fi
        echo "failed with status $status, and is tried again in ${RETRY_PAUSE:=10} seconds: $*" >&2
        sleep "$RETRY_PAUSE"
    done
}
