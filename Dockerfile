# One static binary in an empty image, run as nobody in particular.
FROM rust:1.95-bookworm AS build
WORKDIR /src
COPY Cargo.toml Cargo.lock ./
COPY .cargo .cargo
COPY src src
COPY benches benches
# RUSTFLAGS takes the place of what .cargo/config.toml says, so it says that too. An explicit target keeps what the
# compiler itself loads dynamic.
RUN target="$(rustc -vV | sed -n 's/^host: //p')" \
 && RUSTFLAGS='-C target-feature=+crt-static --cfg getrandom_backend="linux_getrandom"' \
    cargo build --release --locked --bin picket --target "$target" \
 && install -D "target/$target/release/picket" /root-of-image/usr/local/bin/picket \
 && install -d /root-of-image/etc/picket \
 && install -d -m 700 /state/picket

FROM scratch
COPY --from=build /root-of-image/ /
COPY --from=build --chown=65532:65532 /state/ /var/lib/
USER 65532:65532
VOLUME /var/lib/picket
# Mount picket.toml and its probe files at /etc/picket; `listen = "0.0.0.0:9464"` in it shows the page outside.
ENTRYPOINT ["/usr/local/bin/picket"]
CMD ["run"]
