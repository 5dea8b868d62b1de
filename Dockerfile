FROM golang:1.26 AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
ARG VERSION=dev
RUN CGO_ENABLED=0 go build -trimpath -tags disable_grpc_modules -ldflags "-s -w -X main.version=${VERSION}" -o /out/rouse ./cmd/rouse \
 && mkdir -p /out/data

# The binary and the certificates of the public authorities: no shell, not root.
FROM scratch
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build --chown=65532:65532 /out/data /data
COPY --from=build /out/rouse /rouse
USER 65532:65532
VOLUME /data
ENV ROUSE_DB=sqlite:/data/rouse.db ROUSE_LISTEN=:8080 ROUSE_OPS_LISTEN=:9090
EXPOSE 8080 9090
ENTRYPOINT ["/rouse"]
CMD ["serve"]
