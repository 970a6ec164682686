/* All ops that are linked into one library, each in its domain: ONNX Runtime takes a domain once. */
#include "edgec_op.hpp"

extern "C" __attribute__((visibility("default"))) Handle RegisterCustomOps(Handle options,
                                                                           const ApiBase *base)
{
    const Function *api = base->api(PARALLEL);
    if (!api)
        return edgec::call_at(base->api(VERSION), CREATE_STATUS, 1,
                              "these kernels need ONNX Runtime 1.17 or newer");
    std::vector<std::pair<std::string, Handle>> domains;
    for (const edgec::Entry &one : edgec::entries()) {
        Handle domain = nullptr, failure = nullptr;
        for (const auto &[name, known] : domains)
            domain = name == one.domain ? known : domain;
        if (!domain) {
            failure = edgec::call_at(api, CREATE_CUSTOM_OP_DOMAIN, one.domain, &domain);
            if (!failure)
                failure = edgec::call_at(api, ADD_CUSTOM_OP_DOMAIN, options, domain);
            domains.emplace_back(one.domain, domain);
        }
        if (!failure)
            failure = edgec::call_at(api, CUSTOM_OP_DOMAIN_ADD, domain, one.op);
        if (failure)
            return failure;
    }
    return nullptr;
}
