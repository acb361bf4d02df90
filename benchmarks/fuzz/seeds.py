"""Inputs to start from: short ones that reach every branch a fuzzer would need long to find."""

from types import MappingProxyType

SEEDS: MappingProxyType[str, tuple[bytes, ...]] = MappingProxyType(
    {
        "request": (
            (
                b'\0{"model":"m","messages":[{"role":"user","content":"hi"}],"stream":true,'
                b'"stream_options":{"include_usage":false},"max_tokens":5,"n":2,"priority":1}'
            ),
            b'\1{"model":"m","prompt":[[1,2,3],[4]],"best_of":2,"cache_salt":"s"}',
            b'\2{"model":"m","input":["a","b"],"tools":[{}],"system":"s"}',
        ),
        "multipart": (
            (
                b'--b\r\nContent-Disposition: form-data; name="model"\r\n\r\nm\r\n'
                b'--b\r\nContent-Disposition: form-data; name="stream"\r\n\r\ntrue\r\n--b--\r\n'
            ),
            (
                b'\x01multipart/form-data; boundary="x y"\n--x y\r\n'
                b"content-disposition: form-data; name=model\r\n\r\nm\r\n--x y--"
            ),
        ),
        "stream": (
            (
                b'\3data: {"model":"sent","choices":[{"delta":{"content":"a"}}]}\n\n'
                b'data: {"choices":[{"delta":{},"finish_reason":"stop"}]}\r\n\r\n: comment\n\n'
                b'data: {"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":2}}\n\n'
                b"data: [DONE]\n\n"
            ),
            b'\1event: error\ndata: {"error":{"message":"m","code":500}}\n\ndata:\n\n',
        ),
        "metrics": (
            (
                b'vllm:num_requests_running{model_name="m",engine="0"} 1.0\n'
                b'vllm:kv_cache_usage_perc{engine="0"} 0.5\nvllm:num_requests_waiting 3\n'
                b'vllm:lora_requests_info{max_lora="4",running_lora_adapters="a,b",'
                b'waiting_lora_adapters=""} 1.7e+09\n'
                b'vllm:iteration_tokens_total_bucket{le="64"} 5\n'
                b'vllm:cache_config_info{block_size="16",num_gpu_blocks="100"} 1.0\n'
            ),
            b'{"object":"list","data":[{"id":"m","parent":null,"max_model_len":100}]}',
        ),
        "headers": (
            b"Host\2g\1Content-Length\0025\1X-Request-Id\2abc\1Connection\2x-a, close",
            b"Transfer-Encoding\2chunked\1x-slo-ttft-ms\002500\1Authorization\2Bearer k",
            b"x-gateway-inference-fairness-id\2a\1Authorization\2Basic YTpi\1api-key\2k",
        ),
        "connection": (
            (
                b"\3POST /v1/completions HTTP/1.1\r\nHost: g\r\nContent-Length: 4\r\n\r\nbody"
                b"GET http://a:80/v1/models HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"
            ),
            (
                b"\1POST /a HTTP/1.1\r\nHost: g\r\nTransfer-Encoding: chunked\r\n"
                b"Expect: 100-continue\r\n\r\n"
                b"2;e=1\r\nab\r\n0\r\nX-T: t\r\n\r\n"
            ),
            (
                b"\5POST /a HTTP/1.1\r\nHost: g\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n"
                b"Content-Length: 2\r\n\r\nabGET / HTTP/1.1\r\nHost: g\r\n\r\n"
            ),
            (
                b"\4GET / HTTP/1.1\r\nHost: g\r\n\r\nGET / HTTP/1.1\r\nHost: g\r\n\r\n"
                b"GET / RTSP/1.0\r\nHost: g\r\n\r\n"
            ),
            (
                b"\2POST /a HTTP/1.1\r\nHost: g\r\nContent-Length: 19\r\n\r\n"
                b"GET / RTSP/1.0\r\n\r\nGET / HTTP/1.1\r\nHost: g\r\n\r\n"
            ),
            (
                b"\6POST / HTTP/1.1\r\nHost: g\r\nTransfer-Encoding: chunked\r\n\r\n"
                b"13;e=1\r\nGET / HTTP/1.1\r\n\r\n\r\n1\r\na\r\n0\r\nX-T: t\r\n\r\n"
                b"GET / RTSP/1.0\r\nHost: g\r\n\r\n"
            ),
        ),
        "config": (
            b"backends: [http://a:1]\nport: 80\nqueue_timeout: 5s\nmax_body_size: 1MiB\n",
            (
                b"pools:\n- name: p\n  servers: [http://a:1]\n  services:\n  - name: s\n"
                b"    targets: [{name: m, weight: 1}]\n    objective: {ttft: 1s, percentile: p95}\n"
            ),
            b"api_keys: [{name: k, sha256: '" + b"0" * 64 + b"', services: [default]}]\n",
        ),
    }
)
