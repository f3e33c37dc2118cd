// What the logs beside this file are the verbose output of: see README.md. Runs with oneDNN 2.0 and later.
#include <cstring>
#include <unordered_map>
#include <vector>

#include "dnnl.hpp"
#ifdef GRAPH
#include "oneapi/dnnl/dnnl_graph.hpp"
#endif

using namespace dnnl;
using tag = memory::format_tag;
using md = memory::desc;
static const auto f32 = memory::data_type::f32;

static memory filled(const md &d, const engine &e) {
    memory m(d, e);
    auto *p = static_cast<char *>(m.map_data());
    std::memset(p, 0, d.get_size());
    m.unmap_data(p);
    return m;
}

static primitive_attr relu(bool binary, const md &other) {
    post_ops ops;
#if DNNL_VERSION_MAJOR >= 3
    ops.append_eltwise(algorithm::eltwise_relu, 0.f, 0.f);
#else
    ops.append_eltwise(1.f, algorithm::eltwise_relu, 0.f, 0.f);
#endif
    if (binary) {
        ops.append_sum(0.5f);
        ops.append_binary(algorithm::binary_add, other);
    }
    primitive_attr attr;
    attr.set_post_ops(ops);
    return attr;
}

static convolution_forward::primitive_desc convolution(const engine &e, bool binary) {
    md src({2, 16, 12, 10}, f32, tag::any), wei({32, 16, 3, 3}, f32, tag::any), bia({32}, f32, tag::x),
            dst({2, 32, 12, 10}, f32, tag::any), other({1, 32, 1, 1}, f32, tag::nchw);
    auto attr = relu(binary, other);
#if DNNL_VERSION_MAJOR >= 3
    return {e, prop_kind::forward_inference, algorithm::convolution_direct, src, wei, bia, dst, {1, 1}, {1, 1}, {1, 1},
            attr};
#else
    return {{prop_kind::forward_inference, algorithm::convolution_direct, src, wei, bia, dst, {1, 1}, {1, 1}, {1, 1}},
            attr, e};
#endif
}

static inner_product_forward::primitive_desc inner_product(const engine &e) {
    md src({4, 64}, f32, tag::ab), wei({32, 64}, f32, tag::ab), bia({32}, f32, tag::a), dst({4, 32}, f32, tag::ab);
#if DNNL_VERSION_MAJOR >= 3
    return {e, prop_kind::forward_inference, src, wei, bia, dst};
#else
    return {{prop_kind::forward_inference, src, wei, bia, dst}, e};
#endif
}

static matmul::primitive_desc product(const engine &e) {
    md src({3, 8, 16}, f32, tag::abc), wei({3, 16, 24}, f32, tag::abc), dst({3, 8, 24}, f32, tag::abc);
#if DNNL_VERSION_MAJOR >= 3
    return {e, src, wei, dst};
#else
    return {{src, wei, dst}, e};
#endif
}

static dnnl::sum::primitive_desc total(const engine &e) {
    md src({2, 16, 12, 10}, f32, tag::nchw);
#if DNNL_VERSION_MAJOR >= 3
    return {e, {1.f, 1.f}, {src, src}};
#else
    return {{1.f, 1.f}, {src, src}, e};
#endif
}

#ifdef GRAPH
static void graph_partition(const engine &e, stream &s) {
    using lt = graph::logical_tensor;
    auto strided = lt::layout_type::strided;
    lt a(0, graph::logical_tensor::data_type::f32, {8, 16}, strided), b(1, lt::data_type::f32, {16, 24}, strided),
            c(2, lt::data_type::f32, {8, 24}, strided), d(3, lt::data_type::f32, {8, 24}, strided);
    graph::op mul(0, graph::op::kind::MatMul, {a, b}, {c}, "product"), act(1, graph::op::kind::ReLU, {c}, {d}, "relu");
    graph::graph g(engine::kind::cpu);
    g.add_op(mul);
    g.add_op(act);
    g.finalize();
    std::vector<float> va(128), vb(384), vd(192);
    graph::tensor ta(a, e, va.data()), tb(b, e, vb.data()), td(d, e, vd.data());
    for (auto &p : g.get_partitions()) p.compile({a, b}, {d}, e).execute(s, {ta, tb}, {td});
    s.wait();
}
#endif

int main() {
    engine e(engine::kind::cpu, 0);
    stream s(e);
    md plain({2, 16, 12, 10}, f32, tag::nchw), blocked({2, 16, 12, 10}, f32, tag::nChw16c);
    auto a = filled(plain, e), b = filled(blocked, e), a2 = filled(plain, e);
    auto bias = filled(md({32}, f32, tag::x), e);
    // Twice: the second creation of each primitive is served by the cache.
    for (int i = 0; i < 2; ++i) {
        reorder(a, b).execute(s, a, b);
        for (bool binary : {false, true}) {
            auto c = convolution(e, binary);
            auto x = filled(c.src_desc(), e), w = filled(c.weights_desc(), e), y = filled(c.dst_desc(), e),
                 o = filled(md({1, 32, 1, 1}, f32, tag::nchw), e);
            std::unordered_map<int, memory> args {
                    {DNNL_ARG_SRC, x}, {DNNL_ARG_WEIGHTS, w}, {DNNL_ARG_BIAS, bias}, {DNNL_ARG_DST, y}};
            if (binary) args.insert({DNNL_ARG_ATTR_MULTIPLE_POST_OP(2) | DNNL_ARG_SRC_1, o});
            convolution_forward(c).execute(s, args);
        }
        auto p = inner_product(e);
        auto px = filled(p.src_desc(), e), pw = filled(p.weights_desc(), e), py = filled(p.dst_desc(), e);
        inner_product_forward(p).execute(
                s, {{DNNL_ARG_SRC, px}, {DNNL_ARG_WEIGHTS, pw}, {DNNL_ARG_BIAS, bias}, {DNNL_ARG_DST, py}});
        auto m = product(e);
        auto mx = filled(m.src_desc(), e), mw = filled(m.weights_desc(), e), my = filled(m.dst_desc(), e);
        matmul(m).execute(s, {{DNNL_ARG_SRC, mx}, {DNNL_ARG_WEIGHTS, mw}, {DNNL_ARG_DST, my}});
        sum(total(e)).execute(
                s, {{DNNL_ARG_MULTIPLE_SRC, a}, {DNNL_ARG_MULTIPLE_SRC + 1, a}, {DNNL_ARG_DST, a2}});
        s.wait();
    }
#ifdef GRAPH
    graph_partition(e, s);
#endif
}
